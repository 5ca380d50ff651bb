/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Events: one ring buffer per probe, and the counts that make its losses exact.
 *
 * produced = what reached the ring + lost to a full ring + lost to the rate limit,
 * always: each event is counted once as produced, and again where it is lost.
 *
 * Records are submitted with the kernel's default notification, which wakes only
 * a reader that has caught up. The reader (internal/ring) lingers on purpose, so
 * that one wake-up pays for many records.
 */
#pragma once

#include "helpers.h"

/* What every record starts with. */
struct event_header {
	u64 time;      /* boot-time clock, ns */
	u64 cgroup_id; /* scope.h */
	u32 kind;      /* the probe's own enum */
	u32 size;      /* bytes of the whole record, this header included */
};
_Static_assert(sizeof(struct event_header) == 24, "the header has no padding");

struct event_counts {
	u64 produced;
	u64 ring_full;
	u64 rate_limited;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* limits.ring_buffer */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct event_counts);
} event_counts SEC(".maps");

/* The second that is running, and how many events it has had. */
struct event_window {
	u64 second;
	u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct event_window);
} event_window SEC(".maps");

/*
 * Tell whether an event that happens now may be sent, and count it either way.
 * The limit holds over all CPUs; two CPUs that open a new second together may let
 * a handful more through, but what is refused is counted one by one.
 */
static __always_inline bool event_admit(void)
{
	u32 zero = 0;
	struct event_counts *counts = bpf_map_lookup_elem(&event_counts, &zero);
	struct event_window *window;
	u64 second;

	if (!counts)
		return false;
	atomic_add(&counts->produced, 1);
	if (!setting_events_per_second)
		return true;
	window = bpf_map_lookup_elem(&event_window, &zero);
	if (!window)
		return true;
	second = bpf_ktime_get_boot_ns() / 1000000000;
	if (window->second != second) {
		window->second = second;
		window->count = 0;
	}
	if (window->count >= setting_events_per_second) {
		atomic_add(&counts->rate_limited, 1);
		return false;
	}
	atomic_add(&window->count, 1);
	return true;
}

/* Send a record that event_admit() let through; a full ring is counted. */
static __always_inline void event_send(void *record, u64 size)
{
	u32 zero = 0;
	struct event_counts *counts;

	if (!bpf_ringbuf_output(&events, record, size, 0))
		return;
	counts = bpf_map_lookup_elem(&event_counts, &zero);
	if (counts)
		atomic_add(&counts->ring_full, 1);
}
