//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The scheduler: how long tasks wait for a CPU, how long they run and why they
 * stop, context switches and migrations.
 *
 * Hooks: tp_btf/sched_wakeup and sched_wakeup_new (the wait begins), sched_switch
 * (it ends for the next task, and begins for a previous one that could go on). The
 * idle task (pid 0) never waits and is not counted.
 *
 * Both hooks run under a run-queue lock, where nothing may be allocated: memory
 * allocation can wake kswapd, which takes a run-queue lock. Therefore each task's
 * storage is made elsewhere, at sched_process_fork for new tasks and by a task
 * iterator for those that existed before, and the hot path only looks it up.
 * Before v5.11 there is no task storage; a preallocated LRU hash by tid serves.
 *
 * Context switches are taken from the kernel's own counts (nvcsw, nivcsw), which it
 * raises just before the tracepoint: they equal /proc/PID/status to the last one,
 * on every kernel, also where a pending signal turns a sleep into a switch.
 * Migrations too (se.nr_migrations): sched_migrate_task would cost a program more,
 * and fires before the kernel looks whether the CPU is another one. They count when
 * the task next leaves a CPU.
 *
 * Kernel: 5.10. Not seen: the wait of a task between the moment it was made
 * runnable and the tracepoint (nanoseconds), the first wait of tasks that were
 * waiting when the probe started.
 */
#include "series.h"
#include "histogram.h"

/* Measure how long tasks stay on the CPU, and off it. */
volatile const bool scheduler_on_cpu = false;
volatile const bool scheduler_off_cpu = false;

/* Why a task left the CPU. */
enum off_cpu_reason {
	OFF_CPU_PREEMPTED = 0,
	OFF_CPU_INTERRUPTIBLE = 1,
	OFF_CPU_UNINTERRUPTIBLE = 2,
	OFF_CPU_IDLE = 3,  /* a kernel thread without work */
	OFF_CPU_OTHER = 4, /* stopped, traced, parked, dead */
};

EXPORT_TYPE(enum, off_cpu_reason);

struct task_times {
	u64 runnable_since; /* ns; 0: not waiting for a CPU */
	u64 left_cpu;	    /* ns; 0: unknown */
	u64 got_cpu;	    /* ns; 0: unknown */
	u64 voluntary;	    /* nvcsw when last seen */
	u64 involuntary;    /* nivcsw when last seen */
	u64 migrations;	    /* se.nr_migrations when last seen */
	u32 reason;	    /* enum off_cpu_reason */
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_times);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, struct task_times);
} tasks_by_tid SEC(".maps");

struct scheduler_key {
	u64 scope;
};

struct scheduler_value {
	u64 voluntary;
	u64 involuntary;
	u64 migrations;
	struct histogram run_queue;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct scheduler_key);
	__type(value, struct scheduler_value);
} scheduler SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct scheduler_key);
	__type(value, struct histogram);
} on_cpu SEC(".maps");

struct off_cpu_key {
	u64 scope;
	u64 reason;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct off_cpu_key);
	__type(value, struct histogram);
} off_cpu SEC(".maps");

const struct scheduler_value zero_value = {};
const struct histogram zero_histogram = {};

#define has_task_storage() bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_storage_get)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sched_entity {
	u64 nr_migrations;
};

struct task_struct___scheduled {
	struct sched_entity se;
};
#pragma clang attribute pop

static __always_inline u64 migrations_of(struct task_struct *task)
{
	return ((struct task_struct___scheduled *)task)->se.nr_migrations;
}

/* Take the kernel's counts as seen. */
static __always_inline void see_counts(struct task_times *times, struct task_struct *task)
{
	times->voluntary = task->nvcsw;
	times->involuntary = task->nivcsw;
	times->migrations = migrations_of(task);
}

/* What is known of a task, or NULL. */
static __always_inline struct task_times *times_of(struct task_struct *task)
{
	struct task_times *times, fresh = {};
	u32 tid;

	if (has_task_storage())
		return bpf_task_storage_get(&tasks, task, NULL, 0);
	tid = task->pid;
	times = bpf_map_lookup_elem(&tasks_by_tid, &tid);
	if (times)
		return times;
	see_counts(&fresh, task);
	bpf_map_update_elem(&tasks_by_tid, &tid, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&tasks_by_tid, &tid);
}

/* Begin to watch a task, from a place where memory may be allocated. */
static __always_inline void watch(struct task_struct *task)
{
	struct task_times *times;
	u32 tid;

	if (!has_task_storage()) {
		/* A reused tid must not inherit its predecessor's counts. */
		tid = task->pid;
		bpf_map_delete_elem(&tasks_by_tid, &tid);
		times_of(task);
		return;
	}
	times = bpf_task_storage_get(&tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (times)
		see_counts(times, task);
}

static __always_inline struct scheduler_value *value_of(u64 scope)
{
	struct scheduler_key key = {.scope = scope}, overflow = {.scope = SERIES_OVERFLOW};

	return series_value(&scheduler, &key, &overflow, &zero_value);
}

static __always_inline long task_state(struct task_struct *task)
{
	if (bpf_core_field_exists(struct task_struct, __state))
		return task->__state;
	return ((struct task_struct___old *)task)->state;
}

/* include/linux/sched.h */
#define TASK_INTERRUPTIBLE 0x1
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_WAKING 0x200
#define TASK_NOLOAD 0x400

/* The reason that a state stands for, of a task that cannot go on. */
static __always_inline u32 reason_of(long state)
{
	/* Somebody wakes it already, and what it slept in is not known (before v5.18). */
	if (state & (TASK_INTERRUPTIBLE | TASK_WAKING))
		return OFF_CPU_INTERRUPTIBLE;
	if (!(state & TASK_UNINTERRUPTIBLE))
		return OFF_CPU_OTHER;
	return state & TASK_NOLOAD ? OFF_CPU_IDLE : OFF_CPU_UNINTERRUPTIBLE;
}

/* The value of a scope, if the switch has needed one. */
struct found {
	struct scheduler_value *value;
	u64 scope;
};

/* The task leaves the CPU, and could go on or went to sleep in a state. */
static __always_inline void leave(struct task_struct *task, u64 now, bool runnable, long state,
				  struct found *found)
{
	struct task_times *times = times_of(task);
	struct scheduler_value *value;
	struct histogram *h;
	u64 scope;

	if (!times)
		return;
	times->runnable_since = runnable ? now : 0;
	scope = task_scope(task);
	value = value_of(scope);
	found->value = value;
	found->scope = scope;
	if (value) {
		value->voluntary += task->nvcsw - times->voluntary;
		value->involuntary += task->nivcsw - times->involuntary;
		value->migrations += migrations_of(task) - times->migrations;
	}
	see_counts(times, task);
	if (scheduler_off_cpu) {
		times->left_cpu = now;
		times->reason = runnable ? OFF_CPU_PREEMPTED : reason_of(state);
	}
	if (scheduler_on_cpu && times->got_cpu) {
		struct scheduler_key key = {.scope = scope}, overflow = {.scope = SERIES_OVERFLOW};

		h = series_value(&on_cpu, &key, &overflow, &zero_histogram);
		if (h)
			histogram_add(h, now - times->got_cpu);
		times->got_cpu = 0;
	}
}

/* The task gets the CPU. */
static __always_inline void arrive(struct task_struct *task, u64 now, struct found *found)
{
	struct task_times *times = times_of(task);
	struct scheduler_value *value;
	struct histogram *h;
	u64 scope;

	if (!times)
		return;
	scope = task_scope(task);
	if (times->runnable_since) {
		/* Neighbours often belong together, and a look-up is a fifth of the cost. */
		value = found->scope == scope ? found->value : NULL;
		if (!value)
			value = value_of(scope);
		/* Clocks of two CPUs may differ by a little: a wait is never negative. */
		if (value)
			histogram_add(&value->run_queue, now > times->runnable_since
								 ? now - times->runnable_since
								 : 0);
		times->runnable_since = 0;
	}
	if (scheduler_on_cpu)
		times->got_cpu = now;
	if (scheduler_off_cpu && times->left_cpu) {
		struct off_cpu_key key = {.scope = scope, .reason = times->reason};
		struct off_cpu_key overflow = {.scope = SERIES_OVERFLOW, .reason = times->reason};

		h = series_value(&off_cpu, &key, &overflow, &zero_histogram);
		if (h)
			histogram_add(h, now > times->left_cpu ? now - times->left_cpu : 0);
		times->left_cpu = 0;
	}
}

/* 9c2136be0878 (v5.18) appended the state before the switch to the arguments. */
volatile const bool scheduler_switch_has_state = false;

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct found found = {};
	u64 now = bpf_ktime_get_ns();

	if (prev->pid && !is_self(prev->tgid)) {
		long state = task_state(prev);
		/*
		 * A task that is preempted on its way to sleep stays in the queue, whatever
		 * its state. The state itself tells best who could go on: the argument
		 * still calls a task asleep that a signal kept from it. But once asleep, the
		 * state may be a waker's already.
		 */
		bool runnable = preempt || state == TASK_RUNNING;

		if (scheduler_switch_has_state)
			state = (u32)ctx[3];
		leave(prev, now, runnable, state, &found);
	}
	if (next->pid && !is_self(next->tgid))
		arrive(next, now, &found);
	return 0;
}

static __always_inline int woken(struct task_struct *task)
{
	struct task_times *times;

	if (!task->pid || is_self(task->tgid))
		return 0;
	times = times_of(task);
	/*
	 * One that waits already goes on waiting: it was preempted before it slept. One
	 * that runs does not wait; leave() says when it begins to.
	 */
	if (times && !times->runnable_since)
		times->runnable_since = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *task)
{
	return woken(task);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *task)
{
	return woken(task);
}

/* Before the new task's first wake-up, and outside any run-queue lock. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	if (!is_self(child->tgid))
		watch(child);
	return 0;
}

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct bpf_iter__task {
	struct task_struct *task;
};
#pragma clang attribute pop

/* The tasks that exist already; user space runs it once, after the fork hook is on. */
SEC("iter/task")
int watch_existing(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task && !is_self(task->tgid))
		watch(task);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
