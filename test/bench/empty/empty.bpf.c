//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What `make bench` compares the probes with: programs that do nothing on the same
 * hooks, and the same with the map operations that any program doing the probe's job
 * needs. Between the two and a probe lies what the probe itself costs.
 *
 * fill is no hook: a socket filter that BPF_PROG_TEST_RUN runs, which puts a copy of
 * a record into a ring buffer, by include/event.h like any probe. The ring may be a
 * running probe's own.
 *
 * Kernel: 5.11 (task storage in `*_floor`).
 */
#include "event.h"
#include "series.h"

/* Nothing. */

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter_empty)
{
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit_empty)
{
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch_empty)
{
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup_empty)
{
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec_empty)
{
	return 0;
}

/* The map operations of each job, and nothing else. */

struct floor_key {
	u64 scope;
	u64 what;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct floor_key);
	__type(value, u64);
} floor_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} floor_tasks SEC(".maps");

const u64 floor_zero = 0;

static __always_inline void floor_add(u64 what, u64 n)
{
	struct floor_key key = {.what = what};
	u64 *value = series_value(&floor_counts, &key, &key, &floor_zero);

	if (value)
		*value += n;
}

/* A counter: one per-CPU hash operation with a key of 16 bytes. */
SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit_count_floor)
{
	floor_add(1, 1);
	return 0;
}

/* A duration: task storage at both ends, and a second hash operation. */
SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter_time_floor)
{
	u64 *start = bpf_task_storage_get(&floor_tasks, bpf_get_current_task_btf(), NULL,
					  BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (start)
		*start = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit_time_floor)
{
	u64 *start = bpf_task_storage_get(&floor_tasks, bpf_get_current_task_btf(), NULL, 0);

	floor_add(1, 1);
	if (start)
		floor_add(2, bpf_ktime_get_ns() - *start);
	return 0;
}

/*
 * A wait for the CPU: task storage and one hash operation for either task of a
 * switch. Storage may not be made under the run-queue lock.
 */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork_floor, struct task_struct *parent, struct task_struct *child)
{
	bpf_task_storage_get(&floor_tasks, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch_floor, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	u64 now = bpf_ktime_get_ns();
	u64 *of_prev = bpf_task_storage_get(&floor_tasks, prev, NULL, 0);
	u64 *of_next = bpf_task_storage_get(&floor_tasks, next, NULL, 0);

	if (of_prev) {
		*of_prev = now;
		floor_add(1, 1);
	}
	if (of_next)
		floor_add(2, now - *of_next);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup_floor, struct task_struct *task)
{
	u64 *since = bpf_task_storage_get(&floor_tasks, task, NULL, 0);

	if (since)
		*since = bpf_ktime_get_ns();
	return 0;
}

/* fill */

#define RECORD_LIMIT 1024

/* The record, and how it is sent. */
struct filling {
	u32 size;	/* bytes of the record, RECORD_LIMIT at most */
	u32 pid_offset; /* below 256: where each record has a number of its own; 0: nowhere */
	u32 pid_first;
	u32 pid_count;
	u32 pid_next;
	u8 record[RECORD_LIMIT];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct filling);
} filling SEC(".maps");

EXPORT_TYPE(struct, event_header);

/* User space has it repeated. */
SEC("socket")
int fill(void *packet)
{
	u32 zero = 0;
	struct filling *f = bpf_map_lookup_elem(&filling, &zero);
	struct event_header *header;

	if (!f || !event_admit())
		return 0;
	header = (void *)f->record;
	header->time = bpf_ktime_get_boot_ns();
	if (f->pid_offset) {
		f->pid_next = f->pid_next + 1 < f->pid_count ? f->pid_next + 1 : 0;
		*(u32 *)(f->record + (f->pid_offset & 0xff)) = f->pid_first + f->pid_next;
	}
	if (f->size <= RECORD_LIMIT)
		event_send(f->record, f->size);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
