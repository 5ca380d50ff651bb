/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Settings that user space writes before the program is loaded (internal/load).
 * The verifier sees them as constants, so a branch that a setting switches off
 * costs nothing. A probe gets those that it names; a setting that no code reads
 * is dropped by the compiler.
 */
#pragma once

#include "kernel.h"

enum scope {
	SCOPE_HOST = 0,
	SCOPE_CONTAINER = 1,
	SCOPE_PROCESS = 2,
};

/* What tells one container from another (scope.h). */
enum cgroup_source {
	CGROUP_V2 = 0,	   /* the unified hierarchy holds the processes */
	CGROUP_MEMORY = 1, /* cgroup v1: the memory controller's hierarchy */
	CGROUP_CPU = 2,	   /* cgroup v1 without memory */
	CGROUP_PIDS = 3,   /* cgroup v1 with neither */
};

/* enum scope: the finest resource that metrics are split by. */
volatile const u32 setting_scope = SCOPE_CONTAINER;
/* enum cgroup_source. */
volatile const u32 setting_cgroup_source = CGROUP_V2;
/* The receiver's own thread group in the initial pid namespace: never observed. */
volatile const u32 setting_self_tgid = 0;
/* Metrics have a consumer: aggregate. */
volatile const bool setting_metrics = true;
/* Highest number of events a second over all CPUs; 0 is no limit. */
volatile const u32 setting_events_per_second = 0;
