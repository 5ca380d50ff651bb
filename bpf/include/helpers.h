/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What every probe includes: kernel types, libbpf's macros, the settings, and
 * helpers that exist on some kernels only, behind one name.
 */
#pragma once

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "settings.h"

#define TASK_RUNNING 0

/*
 * Values that are per CPU need atomic adds, too, where another task's run of the
 * program may come in between: tracepoints let themselves be preempted since v7.0.
 * Adds that return nothing exist everywhere; fetching ones need v5.12.
 */
#define atomic_add(pointer, value) ((void)__sync_fetch_and_add(pointer, value))

/*
 * Make bpf2go see a type that only records have: clang writes a type to BTF when a
 * map, a global or a program's argument is made of it.
 */
#define EXPORT_TYPE(kind, name) const kind name *const type_of_##name = NULL

/* The task belongs to the receiver itself, which must not observe itself. */
static __always_inline bool is_self(u32 tgid)
{
	return tgid == setting_self_tgid;
}

/*
 * Keep other tasks off this CPU, for work in per-CPU memory that takes more than
 * one instruction. The kfuncs appeared in v6.10; kernels without them run
 * tracepoints with preemption off anyway.
 *
 * It does not help against the other harm that preemptible tracepoints do: until a
 * preempted task goes on, the kernel skips the program for all others on that CPU
 * (its recursion guard), and a preemption that is due comes at release_cpu(). Skipped
 * runs are counted by the kernel (recursion_misses); probes report them as lost.
 */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

static __always_inline void hold_cpu(void)
{
	if (bpf_preempt_disable)
		bpf_preempt_disable();
}

static __always_inline void release_cpu(void)
{
	if (bpf_preempt_enable)
		bpf_preempt_enable();
}
