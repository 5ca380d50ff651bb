//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Processes: what is executed, how it ends, what signals and the OOM killer do.
 *
 * Hooks, all tp_btf: sched_process_exec fires once an exec has succeeded and the
 * new program's memory, credentials and executable are in place, so the record
 * holds what the kernel resolved, not what the caller's pointer said.
 * sched_process_exit fires for every thread; the last one of a group is the
 * process's exit. sched_process_fork and signal_generate are only counted.
 * mark_victim is the OOM killer's choice, where the kernel passes the victim; sched_prepare_exec (v6.10, optional) sees
 * the credentials before an exec, from which "capabilities gained" follows.
 *
 * Kernel: 5.10. Not seen: the arguments' later rewriting by the process; the
 * resolved path of a script (its interpreter is the executable; the script's name
 * is reported as the caller gave it).
 */
#include "event.h"
#include "path.h"
#include "series.h"

/* Which records to send. */
volatile const bool send_exec = false;
volatile const bool send_exit = false;
volatile const bool send_fork = false;
volatile const bool send_oom = false;
/* Arguments: 0 captures none, else at most that many bytes, up to ARGS_LIMIT. */
volatile const u32 args_limit = 0;
/* sched_process_exit passes group_dead (0a7a1f4b6ab9, v6.16). */
volatile const bool exit_tells_group = false;
/* sched_prepare_exec is attached. */
volatile const bool sees_old_credentials = false;

#define ARGS_LIMIT 8192
#define SCRIPT_LIMIT 4096
#define INTERPRETER_SIZE 256 /* BINPRM_BUF_SIZE: a script's first line */

enum event_kind {
	EVENT_EXEC = 1,
	EVENT_EXIT = 2,
	EVENT_FORK = 3,
	EVENT_OOM = 4,
};

enum exec_flag {
	EXEC_EXECUTABLE_TRUNCATED = 1 << 0,
	EXEC_DIRECTORY_TRUNCATED = 1 << 1,
	EXEC_PARENT_TRUNCATED = 1 << 2,
	EXEC_ARGS_TRUNCATED = 1 << 3,
	EXEC_ARGS_UNREADABLE = 1 << 4,
	EXEC_DELETED = 1 << 5,
	EXEC_MEMFD = 1 << 6,
	EXEC_SCRIPT = 1 << 7,
	EXEC_CAPABILITIES_KNOWN = 1 << 8,
	EXEC_SCRIPT_TRUNCATED = 1 << 9,
	EXEC_HAS_PARENT_EXECUTABLE = 1 << 10,
	EXEC_DIRECTORY_DELETED = 1 << 11,
};

/* What every record about a process holds. */
struct process_ids {
	u64 start;	  /* the leader's start, boot-time clock, ns */
	u64 parent_start; /* the same of the real parent */
	u32 pid;	  /* thread group id, initial namespace */
	u32 parent_pid;
	u32 uid; /* effective, initial user namespace */
	u32 real_uid;
};

struct exec_event {
	struct event_header header;
	struct process_ids ids;
	u64 capabilities_gained;
	enum exec_flag flags; /* or-ed */
	u32 argc;
	/* Bytes of text that follow, in this order. */
	u32 executable_size;
	u32 directory_size;
	u32 parent_size;
	u32 script_size;
	u32 interpreter_size;
	u32 args_size;
	u8 comm[TASK_COMM_LEN];
};
_Static_assert(sizeof(struct exec_event) == 24 + 32 + 8 + 32 + 16, "no padding");

struct exit_event {
	struct event_header header;
	struct process_ids ids;
	u64 max_rss_pages;
	u32 status; /* as wait(2) reports it */
	u32 pad;
	u8 comm[TASK_COMM_LEN];
};
_Static_assert(sizeof(struct exit_event) == 24 + 32 + 16 + 16, "no padding");

struct fork_event {
	struct event_header header;
	struct process_ids ids;
};

struct oom_event {
	struct event_header header;
	struct process_ids ids;
	u64 usage_pages; /* of the limiting cgroup; 0: the host ran out */
	u64 limit_pages;
	u8 comm[TASK_COMM_LEN];
};

EXPORT_TYPE(enum, event_kind);
EXPORT_TYPE(struct, exec_event);
EXPORT_TYPE(struct, exit_event);
EXPORT_TYPE(struct, fork_event);
EXPORT_TYPE(struct, oom_event);

/* Room to build an exec record in: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct text);
} exec_scratch SEC(".maps");

enum count_kind {
	COUNT_PROCESS = 1,
	COUNT_THREAD = 2,
	COUNT_EXEC = 3,
	COUNT_EXIT = 4,	  /* code: wait status */
	COUNT_SIGNAL = 5, /* code: signal */
	COUNT_FATAL = 6,  /* code: signal */
	COUNT_OOM = 7,
};

struct count_key {
	u64 scope;
	enum count_kind kind;
	u32 code;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4);
	__type(key, struct count_key);
	__type(value, u64);
} counts SEC(".maps");

const u64 zero_count = 0;

/* What is known of an exec before it happens. */
struct before_exec {
	u64 capabilities; /* permitted */
	u32 is_script;	  /* only where the classic tracepoints feed the probe */
	u32 pad;
	u8 interpreter[INTERPRETER_SIZE];
};

/* By thread group id. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct before_exec);
} before_exec SEC(".maps");

/* Groups whose exit has been seen, where the kernel does not tell the last thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, u8);
} exited SEC(".maps");

static __always_inline void count(u64 scope, u32 kind, u32 code)
{
	struct count_key key = {.scope = scope, .kind = kind, .code = code};
	struct count_key overflow = {.scope = SERIES_OVERFLOW, .kind = kind};
	u64 *value;

	if (!setting_metrics)
		return;
	value = series_value(&counts, &key, &overflow, &zero_count);
	/* Signals may be generated in an interrupt that falls into another count. */
	if (value)
		atomic_add(value, 1);
}

static __always_inline void fill_header(struct event_header *header, struct task_struct *task,
					u32 kind, u32 size)
{
	header->time = bpf_ktime_get_boot_ns();
	header->cgroup_id = task_cgroup_id(task);
	header->kind = kind;
	header->size = size;
}

static __always_inline void fill_ids(struct process_ids *ids, struct task_struct *task)
{
	struct task_struct *parent = task->real_parent;

	ids->start = task->group_leader->start_boottime;
	ids->parent_start = parent->group_leader->start_boottime;
	ids->pid = task->tgid;
	ids->parent_pid = parent->tgid;
	ids->uid = task->cred->euid.val;
	ids->real_uid = task->cred->uid.val;
}

static __always_inline u64 permitted(const struct cred *cred)
{
	if (bpf_core_field_exists(struct cred___old, cap_permitted.cap)) {
		const struct cred___old *old = (const void *)cred;

		return (u64)BPF_CORE_READ(old, cap_permitted.cap[1]) << 32 |
		       BPF_CORE_READ(old, cap_permitted.cap[0]);
	}
	return BPF_CORE_READ(cred, cap_permitted.val);
}

/* exec */

SEC("tp_btf/sched_prepare_exec")
int BPF_PROG(sched_prepare_exec, struct task_struct *task)
{
	u32 zero = 0, tgid = task->tgid;
	struct text *text = bpf_map_lookup_elem(&exec_scratch, &zero);
	struct before_exec *before;

	if (!text)
		return 0;
	hold_cpu();
	before = (void *)text->bytes;
	__builtin_memset(before, 0, sizeof(*before));
	before->capabilities = permitted(task->cred);
	bpf_map_update_elem(&before_exec, &tgid, before, BPF_ANY);
	release_cpu();
	return 0;
}

static __always_inline void fill_capabilities(struct exec_event *event, struct task_struct *task,
					      const struct before_exec *before)
{
	event->capabilities_gained = 0;
	if (!before)
		return;
	event->capabilities_gained = permitted(task->cred) & ~before->capabilities;
	event->flags |= EXEC_CAPABILITIES_KNOWN;
}

static __always_inline bool is_unlinked(struct dentry *dentry)
{
	return !BPF_CORE_READ(dentry, d_hash.pprev) && dentry != BPF_CORE_READ(dentry, d_parent);
}

/* An anonymous file: it lives on a mount that belongs to no namespace. */
static __always_inline bool is_memfd(struct vfsmount *mnt, struct dentry *dentry)
{
	static const char prefix[] = "memfd:";
	char name[sizeof(prefix)] = {};
	struct mnt_namespace *ns = BPF_CORE_READ(real_mount(mnt), mnt_ns);

	/* MNT_NS_INTERNAL is ERR_PTR(-EINVAL). */
	if (ns && (long)ns > -4096 && (long)ns < 0) {
		bpf_probe_read_kernel(name, sizeof(prefix) - 1, BPF_CORE_READ(dentry, d_name.name));
		for (int i = 0; i < (int)sizeof(prefix) - 1; i++)
			if (name[i] != prefix[i])
				return false;
		return true;
	}
	return false;
}

static __always_inline void append_executable(struct exec_event *event, struct text *text,
					      struct task_struct *task)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file);
	struct vfsmount *mnt = BPF_CORE_READ(file, f_path.mnt);
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	u32 begin = text->length;

	if (is_unlinked(dentry))
		event->flags |= EXEC_DELETED;
	if (is_memfd(mnt, dentry))
		event->flags |= EXEC_MEMFD | EXEC_DELETED;
	if (!text_append_path(text, mnt, dentry))
		event->flags |= EXEC_EXECUTABLE_TRUNCATED;
	event->executable_size = text->length - begin;
}

static __always_inline void append_directory(struct exec_event *event, struct text *text,
					     struct task_struct *task)
{
	u32 begin = text->length;
	struct dentry *dentry = BPF_CORE_READ(task, fs, pwd.dentry);

	if (is_unlinked(dentry))
		event->flags |= EXEC_DIRECTORY_DELETED;
	if (!text_append_path(text, BPF_CORE_READ(task, fs, pwd.mnt), dentry))
		event->flags |= EXEC_DIRECTORY_TRUNCATED;
	event->directory_size = text->length - begin;
}

static __always_inline void append_parent(struct exec_event *event, struct text *text,
					  struct task_struct *task)
{
	u32 begin = text->length;
	struct file *file = BPF_CORE_READ(task, real_parent, mm, exe_file);

	event->parent_size = 0;
	if (!file) /* a kernel thread, or it is gone */
		return;
	event->flags |= EXEC_HAS_PARENT_EXECUTABLE;
	if (!text_append_path(text, BPF_CORE_READ(file, f_path.mnt),
			      BPF_CORE_READ(file, f_path.dentry)))
		event->flags |= EXEC_PARENT_TRUNCATED;
	event->parent_size = text->length - begin;
}

/* The script that was named, and the interpreter that runs it. */
static __always_inline void append_script(struct exec_event *event, struct text *text,
					  const char *script, const char *interpreter)
{
	long n;

	event->flags |= EXEC_SCRIPT;
	n = text_append(text, script, SCRIPT_LIMIT);
	if (n < 0 || n == SCRIPT_LIMIT)
		event->flags |= EXEC_SCRIPT_TRUNCATED;
	event->script_size = n > 0 ? n : 0;
	n = text_append(text, interpreter, SCRIPT_LIMIT);
	event->interpreter_size = n > 0 ? n : 0;
}

/* The arguments as the kernel laid them out on the new stack: NUL after NUL. */
static __always_inline void append_args(struct exec_event *event, struct text *text,
					struct task_struct *task)
{
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	u64 size = BPF_CORE_READ(task, mm, arg_end) - start;
	u32 at = text->length;

	event->args_size = 0;
	if (!args_limit || !size)
		return;
	if (size > args_limit) {
		size = args_limit;
		event->flags |= EXEC_ARGS_TRUNCATED;
	}
	if (at > TEXT_SIZE - ARGS_LIMIT) {
		event->flags |= EXEC_ARGS_TRUNCATED;
		return;
	}
	if (size > ARGS_LIMIT)
		return;
	if (bpf_probe_read_user(&text->bytes[at], size, (void *)start)) {
		event->flags |= EXEC_ARGS_UNREADABLE;
		return;
	}
	event->args_size = size;
	text->length = at + size;
}

/* What the kernel was asked to execute; script and interpreter are NULL for others. */
struct request {
	const char *script;
	const char *interpreter;
	u32 argc;
};

static __always_inline void send_exec_event(struct task_struct *task, struct request request)
{
	u32 zero = 0, tgid = task->tgid;
	struct text *text = bpf_map_lookup_elem(&exec_scratch, &zero);
	struct before_exec *before = NULL;
	struct exec_event *event;
	u64 size;

	if (!text) /* cannot be: the array has this entry */
		return;
	if (sees_old_credentials)
		before = bpf_map_lookup_elem(&before_exec, &tgid);
	event = (void *)text->bytes;
	text->length = sizeof(*event);
	event->flags = 0;
	event->script_size = 0;
	event->interpreter_size = 0;
	fill_ids(&event->ids, task);
	event->argc = request.argc;
	__builtin_memcpy(event->comm, task->comm, sizeof(event->comm));
	fill_capabilities(event, task, before);
	append_executable(event, text, task);
	append_directory(event, text, task);
	append_parent(event, text, task);
	if (request.script)
		append_script(event, text, request.script, request.interpreter);
	append_args(event, text, task);

	size = text->length;
	if (size > TEXT_SIZE)
		return;
	fill_header(&event->header, task, EVENT_EXEC, size);
	event_send(event, size);
	if (sees_old_credentials)
		bpf_map_delete_elem(&before_exec, &tgid);
}

/*
 * binfmt_script and binfmt_misc replace interp, and leave filename as the caller
 * gave it; otherwise both are the same pointer.
 */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct request request = {.argc = bprm->argc};

	if (is_self(task->tgid))
		return 0;
	count(task_scope(task), COUNT_EXEC, 0);
	if (bprm->filename != bprm->interp) {
		request.script = bprm->filename;
		request.interpreter = bprm->interp;
	}
	if (send_exec && event_admit()) {
		/* The record is built in memory that is this CPU's. */
		hold_cpu();
		send_exec_event(task, request);
		release_cpu();
	}
	return 0;
}

/*
 * The same through classic tracepoints, since v7.0 (load.PreemptibleTracing). They
 * pass no bprm: the names are in the tracepoints' own records, and the number of
 * arguments is what the kernel put on top of the new stack.
 */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct trace_event_raw_sched_prepare_exec {
	u32 __data_loc_interp;
	u32 __data_loc_filename;
};

struct trace_event_raw_sched_process_exec {
	u32 __data_loc_filename;
};
#pragma clang attribute pop

/* A string of a tracepoint's record: its offset is in the low half of the locator. */
#define record_string(record, locator) ((const char *)(record) + ((locator) & 0xffff))

SEC("tracepoint/sched/sched_prepare_exec")
int raw_sched_prepare_exec(struct trace_event_raw_sched_prepare_exec *record)
{
	u32 zero = 0, tgid = bpf_get_current_pid_tgid() >> 32;
	struct text *text = bpf_map_lookup_elem(&exec_scratch, &zero);
	struct before_exec *before;
	u64 *interpreter, *filename;

	if (!text)
		return 0;
	before = (void *)text->bytes;
	filename = (void *)(before + 1);
	__builtin_memset(before, 0, sizeof(*before) + INTERPRETER_SIZE);
	interpreter = (void *)before->interpreter;
	bpf_probe_read_kernel_str(interpreter, INTERPRETER_SIZE,
				  record_string(record, record->__data_loc_interp));
	bpf_probe_read_kernel_str(filename, INTERPRETER_SIZE,
				  record_string(record, record->__data_loc_filename));
	for (int i = 0; i < INTERPRETER_SIZE / 8; i++)
		before->is_script |= interpreter[i] != filename[i];
	before->capabilities = permitted(
		BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), cred));
	bpf_map_update_elem(&before_exec, &tgid, before, BPF_ANY);
	return 0;
}

SEC("tracepoint/sched/sched_process_exec")
int raw_sched_process_exec(struct trace_event_raw_sched_process_exec *record)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct request request = {};
	struct before_exec *before;
	struct task_struct *task;

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		return 0;
	task = bpf_get_current_task_btf();
	if (is_self(tgid))
		return 0;
	count(task_scope(task), COUNT_EXEC, 0);
	if (!send_exec || !event_admit())
		return 0;
	bpf_probe_read_user(&request.argc, sizeof(request.argc),
			    (void *)BPF_CORE_READ(task, mm, start_stack));
	before = bpf_map_lookup_elem(&before_exec, &tgid);
	if (before && before->is_script) {
		request.script = record_string(record, record->__data_loc_filename);
		request.interpreter = (const char *)before->interpreter;
	}
	send_exec_event(task, request);
	return 0;
}

/* exit */

#define SIGNAL_GROUP_EXIT 0x00000004

/* The status that wait(2) gives for the process whose last thread is this one. */
static __always_inline u32 wait_status(struct task_struct *task)
{
	struct signal_struct *signal = task->signal;

	if (signal->flags & SIGNAL_GROUP_EXIT)
		return signal->group_exit_code;
	return task->group_leader->exit_code;
}

/*
 * Tell whether the task is the last of its group. signal->live is lowered before
 * the tracepoint, so two last threads may both find it at zero: the first to say
 * so wins.
 */
static __always_inline bool is_last_thread(struct task_struct *task, bool group_dead)
{
	u64 id = process_id(task);
	u8 one = 1;

	if (exit_tells_group)
		return group_dead;
	if (task->signal->live.counter)
		return false;
	return !bpf_map_update_elem(&exited, &id, &one, BPF_NOEXIST);
}

static __always_inline void send_exit_event(struct task_struct *task, u32 status)
{
	struct exit_event event = {};

	fill_header(&event.header, task, EVENT_EXIT, sizeof(event));
	fill_ids(&event.ids, task);
	event.status = status;
	event.max_rss_pages = task->signal->maxrss;
	__builtin_memcpy(event.comm, task->group_leader->comm, sizeof(event.comm));
	event_send(&event, sizeof(event));
}

static __always_inline int exit_of(struct task_struct *task, bool group_dead)
{
	u32 status;
	u64 scope;

	if (is_self(task->tgid) || task->flags & PF_KTHREAD || !is_last_thread(task, group_dead))
		return 0;
	status = wait_status(task);
	scope = task_scope(task);
	count(scope, COUNT_EXIT, status & 0xffff);
	if (status & 0x7f)
		count(scope, COUNT_FATAL, status & 0x7f);
	if (send_exit && event_admit())
		send_exit_event(task, status);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	return exit_of(task, false);
}

/* The same where the kernel tells the last thread. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit_group, struct task_struct *task, bool group_dead)
{
	return exit_of(task, group_dead);
}

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct trace_event_raw_sched_process_exit {
	bool group_dead;
};
#pragma clang attribute pop

SEC("tracepoint/sched/sched_process_exit")
int raw_sched_process_exit(struct trace_event_raw_sched_process_exit *record)
{
	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf))
		return 0;
	return exit_of(bpf_get_current_task_btf(), record->group_dead);
}

/* fork */

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct fork_event event = {};
	bool thread = child->tgid != child->pid;

	if (is_self(parent->tgid))
		return 0;
	count(task_scope(child), thread ? COUNT_THREAD : COUNT_PROCESS, 0);
	if (!send_fork || thread || !event_admit())
		return 0;
	fill_header(&event.header, child, EVENT_FORK, sizeof(event));
	fill_ids(&event.ids, child);
	event_send(&event, sizeof(event));
	return 0;
}

/* signals and the OOM killer */

#define PAGE_COUNTER_SLACK 64 /* MEMCG_CHARGE_BATCH: charges come in batches of it */
#define CGROUP_DEPTH 16

/*
 * Whose memory ran out: the first cgroup from the victim's upwards that is within
 * one charge batch of its limit. If none is, the host's did.
 */
static __always_inline void fill_limit(struct oom_event *event, struct task_struct *task)
{
	struct cgroup_subsys_state *css = controller_css(task->cgroups, memory_cgrp_id);

	for (int i = 0; i < CGROUP_DEPTH && css; i++) {
		struct mem_cgroup *memcg = (void *)css;
		u64 usage = BPF_CORE_READ(memcg, memory.usage.counter);
		u64 limit = BPF_CORE_READ(memcg, memory.max);

		if (usage + PAGE_COUNTER_SLACK + (limit >> 6) >= limit) {
			event->usage_pages = usage;
			event->limit_pages = limit;
			return;
		}
		css = BPF_CORE_READ(css, parent);
	}
}

static __always_inline void fill_oom(struct oom_event *event, struct task_struct *task)
{
	fill_header(&event->header, task, EVENT_OOM, sizeof(*event));
	fill_ids(&event->ids, task);
	fill_limit(event, task);
	__builtin_memcpy(event->comm, task->comm, sizeof(event->comm));
}

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int signal, struct kernel_siginfo *info, struct task_struct *task)
{
	if (is_self(task->tgid))
		return 0;
	count(task_scope(task), COUNT_SIGNAL, signal);
	return 0;
}

/*
 * The victim is passed since 72ba14deb40a (v6.8, and the stable releases of older
 * kernels that took it over); before, a pid is, and current is not the victim.
 */
SEC("tp_btf/mark_victim")
int BPF_PROG(mark_victim, struct task_struct *task)
{
	struct oom_event event = {};

	count(task_scope(task), COUNT_OOM, 0);
	if (!send_oom || !event_admit())
		return 0;
	fill_oom(&event, task);
	event_send(&event, sizeof(event));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
