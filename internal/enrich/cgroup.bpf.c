//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which cgroups come and go.
 *
 * Metrics and events carry a cgroup id; a container may live for milliseconds,
 * so that its folder is gone before anybody walks cgroupfs. The kernel's own
 * tracepoints name it while it exists: cgroup_mkdir (id and path) fires before
 * the folder becomes visible, so before any task can be in it; cgroup_rmdir
 * fires when it was removed, which the kernel allows only without living tasks.
 *
 * Hook: tp_btf, which costs nothing while no cgroup is made, and hands over the
 * struct cgroup itself. Minimum kernel: 5.10 (BTF, ring buffer); the tracepoints
 * have had these arguments since v4.20 (e4f8d81c738d).
 *
 * Cannot see: cgroups made before it was attached (user space walks cgroupfs
 * once), and names beyond the 1,023 bytes that the kernel formats; those come
 * without a path, and user space looks into cgroupfs. Renames (v1 only) leave
 * the path as it was made.
 *
 * The rate limit of events does not apply: a lost record is a container without
 * a name, and nobody makes cgroups by the ten thousand a second.
 */

#include "event.h"

#define PATH_BYTES 1024 /* TRACE_CGROUP_PATH_LEN */

enum cgroup_event_kind {
	CGROUP_EVENT_MKDIR = 1,
	CGROUP_EVENT_RMDIR = 2,
};

/* A record holds the path's bytes up to the end that header.size tells. */
struct cgroup_event {
	struct event_header header;
	char path[PATH_BYTES];
};
_Static_assert(sizeof(struct cgroup_event) == 24 + PATH_BYTES, "no padding");

const struct cgroup_event *unused_event __attribute__((unused));
const enum cgroup_event_kind *unused_kind __attribute__((unused));

/* The hierarchy that tells containers apart: 0 is cgroup v2. */
volatile const u32 setting_hierarchy = 0;

/* Too large for the stack; used with interrupts off, as the tracepoints fire. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cgroup_event);
} scratch SEC(".maps");

static __always_inline int report(struct cgroup *cgroup, const char *path, u32 kind)
{
	u32 zero = 0;
	struct event_counts *counts;
	struct cgroup_event *event;
	long length = 0;

	if ((u32)BPF_CORE_READ(cgroup, root, hierarchy_id) != setting_hierarchy)
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	counts = bpf_map_lookup_elem(&event_counts, &zero);
	if (!event || !counts)
		return 0;
	counts->produced++;

	event->header.time = bpf_ktime_get_boot_ns();
	event->header.cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	event->header.kind = kind;
	if (kind == CGROUP_EVENT_MKDIR)
		length = bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
	/* Without its closing zero; a full buffer was cut, and says nothing sure. */
	if (length < 1 || length >= PATH_BYTES)
		length = 1;
	length = (length - 1) & (PATH_BYTES - 1);
	event->header.size = sizeof(event->header) + length;
	event_send(event, sizeof(event->header) + length);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	return report(cgroup, path, CGROUP_EVENT_MKDIR);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	return report(cgroup, path, CGROUP_EVENT_RMDIR);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
