//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A socket filter that puts a duration into a histogram on each run: user space
 * fills `durations`, runs the program once for each, and reads `slots` (what
 * histogram_slot said of each) and `seen` (what histogram_add made of all).
 *
 * Any program type that BPF_PROG_TEST_RUN accepts would do; this one needs no
 * hook and nothing newer than 5.10.
 */
#include "histogram.h"

#define DURATIONS 65536

u64 durations[DURATIONS];
u32 slots[DURATIONS];
u32 next;
struct histogram seen;

SEC("socket")
int histogram_test(void *packet)
{
	u32 i = next;
	u64 ns;

	/* An interrupted test run is repeated: what is done stays done once. */
	if (i >= DURATIONS)
		return 0;
	next = i + 1;
	ns = durations[i];
	slots[i] = histogram_slot(ns);
	histogram_add(&seen, ns);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
