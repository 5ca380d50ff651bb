//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * For tests: what the kernel side takes for the identity of each process that
 * executes a program. Hook: tp_btf/sched_process_exec, kernel 5.10.
 */

#include "scope.h"
#include "event.h"

struct exec_event {
	struct event_header header;
	u64 process_id;
	u64 start;
	u32 tgid;
	u32 parent;
	char comm[TASK_COMM_LEN];
};
_Static_assert(sizeof(struct exec_event) == 24 + 40, "no padding");

const struct exec_event *unused_event __attribute__((unused));

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec, struct task_struct *task)
{
	struct exec_event event = {};

	event.header.time = bpf_ktime_get_boot_ns();
	event.header.cgroup_id = task_cgroup_id(task);
	event.header.kind = 1;
	event.header.size = sizeof(event);
	event.process_id = process_id(task);
	event.start = BPF_CORE_READ(task, group_leader, start_boottime);
	event.tgid = BPF_CORE_READ(task, tgid);
	event.parent = BPF_CORE_READ(task, real_parent, tgid);
	bpf_probe_read_kernel_str(event.comm, sizeof(event.comm), task->comm);
	if (event_admit())
		event_send(&event, sizeof(event));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
