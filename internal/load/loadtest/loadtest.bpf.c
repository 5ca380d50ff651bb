//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Socket filters, which BPF_PROG_TEST_RUN runs: no hook is needed, and nothing
 * newer than 5.10. `tell` writes down every setting as the kernel has it and counts
 * one duration; `refused` reads through a pointer that may be NULL.
 */
#include "event.h"
#include "histogram.h"
#include "series.h"

struct told {
	u32 scope;
	u32 cgroup_source;
	u32 self_tgid;
	u32 metrics;
	u32 events_per_second;
	u32 histogram_scale;
	u64 bounds[2];
} told;

struct series_key {
	u64 scope;
};

struct series_value {
	u64 count;
	struct histogram duration;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2);
	__type(key, struct series_key);
	__type(value, struct series_value);
} series SEC(".maps");

struct started {
	u64 time;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct started);
} started SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct started);
} started_by_tid SEC(".maps");

SEC("socket")
int tell(void *packet)
{
	struct series_key overflow = {.scope = SERIES_OVERFLOW};
	struct series_value *value;

	told.scope = setting_scope;
	told.cgroup_source = setting_cgroup_source;
	told.self_tgid = setting_self_tgid;
	told.metrics = setting_metrics;
	told.events_per_second = setting_events_per_second;
	told.histogram_scale = setting_histogram_scale;
	told.bounds[0] = histogram_bounds[0];
	told.bounds[1] = histogram_bounds[HISTOGRAM_MAX_BOUNDS - 1];

	value = bpf_map_lookup_elem(&series, &overflow);
	if (!value)
		return 1;
	value->count++;
	histogram_add(&value->duration, 5);
	return 0;
}

SEC("socket")
int send(void *packet)
{
	struct event_header header = {.kind = 1, .size = sizeof(header)};

	if (event_admit())
		event_send(&header, sizeof(header));
	return 0;
}

SEC("socket")
int refused(void *packet)
{
	struct series_key key = {.scope = 1};
	struct series_value *value = bpf_map_lookup_elem(&series, &key);

	return value->count;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
