/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Histograms of durations whose slots are exactly the buckets of an OpenTelemetry
 * exponential histogram in seconds: bucket i of scale s holds
 * 2^(i/2^s) s < v <= 2^((i+1)/2^s) s, upper bound included.
 *
 * Slot 0 holds zero; slot k > 0 is bucket k - 1 - 30 * 2^s, because one nanosecond
 * lies in bucket -30 * 2^s at every scale from 0 to 3. Between 2^L and 2^(L+1)
 * nanoseconds lie exactly 2^s bounds, so
 *
 *     slot(ns) = 1 + L * 2^s + (how many of octave L's bounds are below ns),
 *     L = floor(log2(ns)).
 *
 * Integers compare with a real bound as with its floor, so a table of
 * floor(bound in ns) gives the bucket without any error; internal/otlp computes
 * it with exact arithmetic and writes it here before the program is loaded.
 *
 * Slots are 32 bits wide and wrap: user space adds up differences modulo 2^32, so
 * nothing is lost unless one slot takes 2^32 values between two collections.
 */
#pragma once

#include "helpers.h"

#define HISTOGRAM_MAX_SCALE 3
#define HISTOGRAM_OCTAVES 64U
#define HISTOGRAM_MAX_BOUNDS (HISTOGRAM_OCTAVES << HISTOGRAM_MAX_SCALE)
/* Zero, every bound's lower bucket, and the one above the last bound. */
#define HISTOGRAM_MAX_SLOTS (HISTOGRAM_MAX_BOUNDS + 2)

/* The scale, 0 to 3. */
volatile const u32 setting_histogram_scale = 0;
/* floor(bound in ns), 2^scale for each octave from 2^0 ns on, ascending. */
volatile const u64 histogram_bounds[HISTOGRAM_MAX_BOUNDS] = {};

/*
 * What one CPU has seen of one series. The map's value size is cut to
 * 24 + 4 * slots at load, so `slots` has setting_histogram_scale's number of
 * elements, not the largest one.
 */
struct histogram {
	u64 sum; /* ns */
	u64 min; /* ns; complemented, so that a zeroed value means "none yet" */
	u64 max; /* ns */
	u32 slots[HISTOGRAM_MAX_SLOTS];
};

/* floor(log2(v)) for v > 0. */
static __always_inline u32 floor_log2(u64 v)
{
	u32 log = 0;

	if (v >> 32) {
		v >>= 32;
		log += 32;
	}
	if (v >> 16) {
		v >>= 16;
		log += 16;
	}
	if (v >> 8) {
		v >>= 8;
		log += 8;
	}
	if (v >> 4) {
		v >>= 4;
		log += 4;
	}
	if (v >> 2) {
		v >>= 2;
		log += 2;
	}
	return log + (v >> 1);
}

static __always_inline u64 histogram_bound(u32 i)
{
	return histogram_bounds[i & (HISTOGRAM_MAX_BOUNDS - 1)];
}

/* The slot of a duration. */
static __always_inline u32 histogram_slot(u64 ns)
{
	u32 first, below = 0;

	if (!ns)
		return 0;
	first = floor_log2(ns) << setting_histogram_scale;
	/* A binary search over 2^scale sorted bounds, unrolled by the settings. */
	if (setting_histogram_scale >= 3 && ns > histogram_bound(first + below + 3))
		below += 4;
	if (setting_histogram_scale >= 2 && ns > histogram_bound(first + below + 1))
		below += 2;
	if (setting_histogram_scale >= 1 && ns > histogram_bound(first + below))
		below += 1;
	if (ns > histogram_bound(first + below))
		below += 1;
	return 1 + first + below;
}

/*
 * Count a duration. The value belongs to this CPU, and tracing programs on one
 * CPU do not interrupt each other on the paths that call this, so plain additions
 * are enough.
 */
static __always_inline void histogram_add(struct histogram *h, u64 ns)
{
	u64 slot = histogram_slot(ns);

	/*
	 * One 64-bit register for the comparison and the access: up to 5.10 at least
	 * the verifier does not carry the bound of a 32-bit one over to its copy.
	 */
	barrier_var(slot);
	if (slot < 2 + (HISTOGRAM_OCTAVES << setting_histogram_scale))
		h->slots[slot]++;
	h->sum += ns;
	if (~ns > h->min)
		h->min = ~ns;
	if (ns > h->max)
		h->max = ns;
}
