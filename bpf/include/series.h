/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Metrics that are aggregated in the kernel: per-CPU hash maps, one entry for each
 * key, which user space reads in batches (internal/table).
 *
 * max_entries of such a map is given in multiples of limits.max_series, which
 * internal/load fills in. User space inserts the keys of the overflow series, whose
 * scope is SERIES_OVERFLOW, before anything attaches; what no longer gets a key of
 * its own is counted under one of those, so that totals stay exact.
 */
#pragma once

#include "scope.h"

#define SERIES_OVERFLOW (~0ULL)

/*
 * The value of *key on this CPU: found, or inserted as a copy of *zero, or, when the
 * map is full, the value of *overflow. NULL only if user space did not insert that.
 */
static __always_inline void *series_value(void *map, const void *key, const void *overflow,
					  const void *zero)
{
	void *value = bpf_map_lookup_elem(map, key);

	if (value)
		return value;
	bpf_map_update_elem(map, key, zero, BPF_NOEXIST);
	value = bpf_map_lookup_elem(map, key);
	if (value)
		return value;
	return bpf_map_lookup_elem(map, overflow);
}
