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
 * An atomic add that returns nothing: fetching variants need v5.12. Counters
 * that are per CPU do not need it, except where a program may be interrupted by
 * another one on the same CPU that touches the same value.
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
