//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A socket filter that sends one event on each run, through bpf/include/event.h:
 * user space runs it as often as it likes with BPF_PROG_TEST_RUN, so that what was
 * produced is known from elsewhere than the counts that are under test.
 *
 * Any program type that BPF_PROG_TEST_RUN accepts would do; this one needs no hook
 * and nothing newer than 5.10.
 */
#include "event.h"

/* An interrupted test run is repeated: the runs are counted here. */
u64 runs;
/* Bytes of a record, at least a header and a number. */
volatile const u32 record_size = 64;

struct numbered_event {
	struct event_header header;
	u64 number;
	u8 filling[4096 - 32];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct numbered_event);
} scratch SEC(".maps");

SEC("socket")
int ring_test(void *packet)
{
	u32 zero = 0;
	struct numbered_event *event = bpf_map_lookup_elem(&scratch, &zero);

	atomic_add(&runs, 1);
	if (!event || !event_admit())
		return 0;
	event->header.time = bpf_ktime_get_boot_ns();
	event->header.size = record_size;
	event->number = runs;
	if (record_size <= sizeof(*event))
		event_send(event, record_size);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
