//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * System calls: how many, which fail with what, and on request how long they take.
 *
 * Hook: tp_btf/sys_exit, once per call that returns. Counting at the exit gives the
 * number, the error and the count in one program; a second program at sys_enter
 * would cost every call another 80 ns and is attached only for durations.
 *
 * From v7.0 on a task may be preempted inside a program at tp_btf, and until it goes
 * on, the kernel skips the program for all other tasks on that CPU. Classic
 * tracepoints still run with preemption off: they cost 40 ns more and lose next to
 * nothing (a CPU skips them while a task is preempted in the middle of reading a
 * map), so they feed the probe there. What is skipped is counted by the kernel, and
 * user space adds it to the overflow series.
 *
 * Some calls need care to be counted exactly:
 *   - exit and exit_group never return. A dying thread's saved registers still hold
 *     the call that it is in, so tp_btf/sched_process_exit counts them.
 *   - fork, vfork, clone and clone3 return twice. The new task's return, with 0, is
 *     no call of its own.
 *   - rt_sigreturn restores the interrupted context's registers, and the kernel
 *     sets the number to -1 so that the call is not restarted: at sys_exit, -1
 *     is a signal return and its "result" is not one. (i386's older sigreturn looks
 *     the same and is counted as rt_sigreturn, and so is a call with number -1.)
 *   - numbers that no table can have share one name, so that a program cannot make
 *     up series.
 *
 * Results of -4095..-1 are errors, except the restart codes 512..530
 * (include/linux/errno.h). Those say that a signal interrupted the call; whether it
 * is then restarted or returns EINTR is decided after sys_exit and not seen here.
 *
 * 32-bit callers use another table of numbers; their calls are counted apart.
 *
 * Kernel: 5.10 (tp_btf: 5.5, batched reads: 5.6). Calls that seccomp refuses are
 * counted with the error it gives, but have no duration: sys_enter comes after
 * seccomp. Not seen: calls of threads that seccomp kills, work that io_uring does
 * without a system call; on x86 the kernel renames an execveat that succeeds to
 * execve.
 */
#include "series.h"
#include "histogram.h"

/* Which of the kernel's tables a number belongs to. */
enum abi {
	ABI_NATIVE = 0,
	ABI_COMPAT = 1, /* 32-bit: i386 on x86, arm on arm64 */
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long orig_ax;
};
#define syscall_number(regs) ((s32)(regs)->orig_ax)
#define read_syscall_number(regs) ((s32)BPF_CORE_READ(regs, orig_ax))
#define NR_EXIT 60
#define NR_EXIT_GROUP 231
#define NR_RT_SIGRETURN 15
#define NR_CLONE 56
#define NR_FORK 57
#define NR_VFORK 58
#define NR_COMPAT_EXIT 1
#define NR_COMPAT_EXIT_GROUP 252
#define NR_COMPAT_RT_SIGRETURN 173
#define TS_COMPAT 0x0002 /* arch/x86/include/asm/thread_info.h */
#define is_compat(task) ((task)->thread_info.status & TS_COMPAT)
#define read_is_compat(task) (BPF_CORE_READ(task, thread_info.status) & TS_COMPAT)
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	s32 syscallno;
};
#define syscall_number(regs) ((regs)->syscallno)
#define read_syscall_number(regs) BPF_CORE_READ(regs, syscallno)
#define NR_EXIT 93
#define NR_EXIT_GROUP 94
#define NR_RT_SIGRETURN 139
#define NR_CLONE 220
#define NR_FORK NR_CLONE /* arm64 has neither */
#define NR_VFORK NR_CLONE
#define NR_COMPAT_EXIT 1
#define NR_COMPAT_EXIT_GROUP 248
#define NR_COMPAT_RT_SIGRETURN 173
#define TIF_32BIT 22 /* arch/arm64/include/asm/thread_info.h */
#define is_compat(task) ((task)->thread_info.flags >> TIF_32BIT & 1)
#define read_is_compat(task) (BPF_CORE_READ(task, thread_info.flags) >> TIF_32BIT & 1)
#endif
#pragma clang attribute pop

/* The same on all. */
#define NR_CLONE3 435
#define NR_COMPAT_FORK 2
#define NR_COMPAT_CLONE 120
#define NR_COMPAT_VFORK 190

#define MAX_ERRNO 4095
#define FIRST_RESTART_CODE 512
#define LAST_RESTART_CODE 530

#define SYSCALL_WORDS 16 /* 1,024 numbers: the tables end near 470 */

/* Stands for every number that lies outside. */
enum syscall_number {
	SYSCALL_UNKNOWN = SYSCALL_WORDS * 64 - 1,
};

/* A filter is set: count only calls whose bit is set in syscall_counted. */
volatile const bool syscall_filtered = false;
volatile const u64 syscall_counted[2][SYSCALL_WORDS] = {};
/* Calls whose duration is measured, by ABI and number. */
volatile const u64 syscall_timed[2][SYSCALL_WORDS] = {};
/* Durations are measured at all. */
volatile const bool syscall_latency = false;

EXPORT_TYPE(enum, abi);
EXPORT_TYPE(enum, syscall_number);

struct syscall_key {
	u64 scope;
	u16 number;
	u16 abi;
	u32 error; /* errno, 0 for success; of the overflow series 1 for any */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, struct syscall_key);
	__type(value, u64);
} counts SEC(".maps");

struct duration_key {
	u64 scope;
	u16 number;
	u16 abi;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct duration_key);
	__type(value, struct histogram);
} durations SEC(".maps");

/* When the running call of a task began, ns; kernels without task storage key by tid. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} started SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, u64);
} started_by_tid SEC(".maps");

const u64 zero_count = 0;
const struct histogram zero_histogram = {};

static __always_inline bool listed(volatile const u64 *words, u16 number)
{
	return words[(number >> 6) & (SYSCALL_WORDS - 1)] >> (number & 63) & 1;
}

static __always_inline bool is_error(long result)
{
	return result < 0 && result >= -MAX_ERRNO &&
	       !(result <= -FIRST_RESTART_CODE && result >= -LAST_RESTART_CODE);
}

static __always_inline void count(u64 scope, u16 number, u16 abi, u32 error)
{
	struct syscall_key key = {.scope = scope, .number = number, .abi = abi, .error = error};
	struct syscall_key overflow = {.scope = SERIES_OVERFLOW, .error = error ? 1 : 0};
	u64 *value;

	if (syscall_filtered && !listed(syscall_counted[abi & 1], number))
		return;
	value = series_value(&counts, &key, &overflow, &zero_count);
	if (value)
		(*value)++;
}

/* Who makes the call that runs. */
struct caller {
	u64 scope;
	u16 abi;
	bool self; /* the receiver, and the rest is not set */
};

static __always_inline struct caller current_caller(void)
{
	struct caller caller = {};

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf)) {
		/* Asked for once: each helper costs nanoseconds. */
		struct task_struct *task = bpf_get_current_task_btf();

		caller.self = is_self(task->tgid);
		if (caller.self)
			return caller;
		caller.abi = is_compat(task) ? ABI_COMPAT : ABI_NATIVE;
		caller.scope = task_scope(task);
	} else {
		struct task_struct *task = (struct task_struct *)bpf_get_current_task();

		caller.self = is_self(bpf_get_current_pid_tgid() >> 32);
		if (caller.self)
			return caller;
		caller.abi = read_is_compat(task) ? ABI_COMPAT : ABI_NATIVE;
		caller.scope = untyped_scope(task);
	}
	return caller;
}

/* A number that the tables can have, or the one that stands for all others. */
static __always_inline u16 known_number(s32 number)
{
	return number >= 0 && number < SYSCALL_UNKNOWN ? number : SYSCALL_UNKNOWN;
}

/* The calls that make a task, which returns from them as well. */
static __always_inline bool makes_task(u16 number, u16 abi)
{
	if (number == NR_CLONE3)
		return true;
	if (abi == ABI_COMPAT)
		return number == NR_COMPAT_CLONE || number == NR_COMPAT_FORK ||
		       number == NR_COMPAT_VFORK;
	return number == NR_CLONE || number == NR_FORK || number == NR_VFORK;
}

/* Where the running task's call began, or NULL; create makes room for it. */
static __always_inline u64 *start_of_call(bool create)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_storage_get))
		return bpf_task_storage_get(&started, bpf_get_current_task_btf(), NULL,
					    create ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	u32 tid = bpf_get_current_pid_tgid();
	u64 *start = bpf_map_lookup_elem(&started_by_tid, &tid);

	if (start || !create)
		return start;
	bpf_map_update_elem(&started_by_tid, &tid, &zero_count, BPF_ANY);
	return bpf_map_lookup_elem(&started_by_tid, &tid);
}

static __always_inline void measure(u64 scope, u16 number, u16 abi)
{
	struct duration_key key = {.scope = scope, .number = number, .abi = abi};
	struct duration_key overflow = {.scope = SERIES_OVERFLOW};
	u64 *start = start_of_call(false);
	struct histogram *h;

	if (!start || !*start)
		return;
	u64 ns = bpf_ktime_get_ns() - *start;
	*start = 0;
	h = series_value(&durations, &key, &overflow, &zero_histogram);
	if (h)
		histogram_add(h, ns);
}

/* A call returns. */
static __always_inline int returned(s32 raw, long result)
{
	struct caller caller = current_caller();
	u32 error = is_error(result) ? -result : 0;
	u16 number;

	if (caller.self)
		return 0;
	if (raw == -1) {
		number = caller.abi == ABI_COMPAT ? NR_COMPAT_RT_SIGRETURN : NR_RT_SIGRETURN;
		error = 0;
	} else {
		number = known_number(raw);
	}
	if (!result && makes_task(number, caller.abi))
		return 0;
	count(caller.scope, number, caller.abi, error);
	if (syscall_latency && listed(syscall_timed[caller.abi & 1], number))
		measure(caller.scope, number, caller.abi);
	return 0;
}

/* A call begins. */
static __always_inline int entered(s32 raw)
{
	struct caller caller = current_caller();
	u64 *start;

	if (caller.self || !listed(syscall_timed[caller.abi & 1], known_number(raw)))
		return 0;
	start = start_of_call(true);
	if (start)
		*start = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	return returned(syscall_number(regs), result);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long number)
{
	return entered(number);
}

/* The records of raw_syscalls' tracepoints, as their format files say. */
struct raw_sys_exit {
	u64 common;
	long number;
	long result;
};

struct raw_sys_enter {
	u64 common;
	long number;
};

SEC("tracepoint/raw_syscalls/sys_exit")
int raw_sys_exit(struct raw_sys_exit *record)
{
	return returned(record->number, record->result);
}

SEC("tracepoint/raw_syscalls/sys_enter")
int raw_sys_enter(struct raw_sys_enter *record)
{
	return entered(record->number);
}

#define THREAD_SIZE_BEFORE_5_15 16384

/* The number of the call that the running, dying task is in. */
static __always_inline s32 last_number(struct task_struct *task)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

		return syscall_number(regs);
	}
	/*
	 * Before v5.15 there is no helper; the registers lie at the end of the kernel
	 * stack (task_pt_regs() in arch/x86 and arch/arm64's asm/processor.h).
	 */
	struct pt_regs *regs = task->stack + THREAD_SIZE_BEFORE_5_15 -
			       bpf_core_type_size(struct pt_regs);
	return read_syscall_number(regs);
}

/* The running task dies. */
static __always_inline int dies(struct task_struct *task)
{
	s32 number;
	u16 abi;

	/*
	 * io_uring's and vhost's threads have a copy of the registers of the task that
	 * made them, which was in another call.
	 */
	if (is_self(task->tgid) || task->flags & PF_KTHREAD)
		return 0;
	number = last_number(task);
	abi = is_compat(task) ? ABI_COMPAT : ABI_NATIVE;
	if (abi == ABI_NATIVE && number != NR_EXIT && number != NR_EXIT_GROUP)
		return 0;
	if (abi == ABI_COMPAT && number != NR_COMPAT_EXIT && number != NR_COMPAT_EXIT_GROUP)
		return 0;
	count(task_scope(task), number, abi, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	return dies(task);
}

SEC("tracepoint/sched/sched_process_exit")
int raw_sched_process_exit(void *record)
{
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		return 0;
	return dies(bpf_get_current_task_btf());
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
