/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whose is it: the identity that metrics are split by and that events carry.
 *
 * cgroup_id is the 64-bit kernfs id of the task's cgroup, which user space finds
 * as the inode number of the cgroup's folder. On a pure v2 host that is the
 * default hierarchy's cgroup; on v1 and hybrid hosts processes live in the
 * controllers' own hierarchies, where bpf_get_current_cgroup_id() is the same for
 * all, so the id is taken from a controller's hierarchy instead.
 */
#pragma once

#include "helpers.h"

/*
 * The css of a controller. The index into css_set.subsys[] is the running kernel's
 * enum value, which clang cannot relocate as an array index, so the offset is
 * computed; the verifier knows it as a constant and keeps the pointer typed.
 */
#define controller_css(cgroups, controller)                                                        \
	(*(struct cgroup_subsys_state **)((void *)(cgroups) +                                      \
					  bpf_core_field_offset(struct css_set, subsys) +          \
					  sizeof(void *) *                                         \
						  bpf_core_enum_value(enum cgroup_subsys_id,       \
								      controller)))

/* The cgroup id of a task in the hierarchy that tells containers apart. */
static __always_inline u64 task_cgroup_id(struct task_struct *task)
{
	struct css_set *cgroups = task->cgroups;

	if (setting_cgroup_source == CGROUP_MEMORY)
		return controller_css(cgroups, memory_cgrp_id)->cgroup->kn->id;
	if (setting_cgroup_source == CGROUP_CPU)
		return controller_css(cgroups, cpu_cgrp_id)->cgroup->kn->id;
	if (setting_cgroup_source == CGROUP_PIDS)
		return controller_css(cgroups, pids_cgrp_id)->cgroup->kn->id;
	return cgroups->dfl_cgrp->kn->id;
}

/*
 * A process, in 64 bits: the thread group's id below, and above it the leader's
 * start time in units of 2^20 ns (about a millisecond, wrapping after 52 days), so
 * that a reused pid is another process.
 */
static __always_inline u64 process_id(struct task_struct *task)
{
	return (u32)task->tgid | (task->group_leader->start_boottime >> 20) << 32;
}

/* The key that a task's metrics are counted under, as `scope:` asks. */
static __always_inline u64 task_scope(struct task_struct *task)
{
	if (setting_scope == SCOPE_CONTAINER)
		return task_cgroup_id(task);
	if (setting_scope == SCOPE_PROCESS)
		return process_id(task);
	return 0;
}

/*
 * The same for the running task. Before v5.11 there is no typed pointer to it, so
 * each field is read through the helper.
 */
static __always_inline u64 untyped_scope(struct task_struct *task)
{
	struct cgroup_subsys_state *css = NULL;
	u32 controller;

	if (setting_scope == SCOPE_PROCESS)
		return (u32)BPF_CORE_READ(task, tgid) |
		       (BPF_CORE_READ(task, group_leader, start_boottime) >> 20) << 32;
	if (setting_scope != SCOPE_CONTAINER)
		return 0;
	if (setting_cgroup_source == CGROUP_V2)
		return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	if (setting_cgroup_source == CGROUP_MEMORY)
		controller = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	else if (setting_cgroup_source == CGROUP_CPU)
		controller = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
	else
		controller = bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id);
	bpf_probe_read_kernel(&css, sizeof(css),
			      (void *)BPF_CORE_READ(task, cgroups) +
				      bpf_core_field_offset(struct css_set, subsys) +
				      sizeof(void *) * controller);
	return BPF_CORE_READ(css, cgroup, kn, id);
}

static __always_inline u64 current_scope(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		return task_scope(bpf_get_current_task_btf());
	return untyped_scope((struct task_struct *)bpf_get_current_task());
}
