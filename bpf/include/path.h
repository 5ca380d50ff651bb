/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Paths as the kernel resolved them: from a dentry up to the root of its file
 * system, across the mount point, and on to the root of the mount namespace. It is
 * what d_path() does; bpf_d_path() may be called from few hooks only.
 *
 * The names are written leaf first, each with its terminating NUL; user space
 * turns them round (internal/event.Path). A task's chroot does not shorten the
 * path: it is the one that the mount namespace has, as /proc/PID/exe shows it.
 *
 * The cursor lives in map memory, not in registers: so both branches of the loop
 * lead to the same state, and the verifier need not follow their product.
 */
#pragma once

#include "helpers.h"

/* PATH_MAX is 4096; beyond 256 components a path is cut, and says so. */
#define PATH_COMPONENTS 256
#define NAME_SIZE 256 /* NAME_MAX + 1 */
#define TEXT_SIZE 24576
#define TEXT_LIMIT (TEXT_SIZE - 4096)
#define TASK_PATH_LIMIT 4096

/* Where one record is built: the fixed part first, then its strings. */
struct text {
	u64 dentry; /* the path walk's cursor */
	u64 mount;
	u32 length; /* bytes used */
	u32 pad;
	u8 bytes[TEXT_SIZE];
};

static __always_inline struct mount *real_mount(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/*
 * Append a NUL-terminated kernel string of up to size bytes, the NUL included.
 * Returns the bytes written, or a negative error.
 */
#define text_append(text, string, size)                                                            \
	({                                                                                         \
		u32 __at = (text)->length;                                                         \
		long __n = -1;                                                                     \
		if (__at < TEXT_LIMIT) {                                                           \
			__n = bpf_probe_read_kernel_str(&(text)->bytes[__at], size, string);       \
			if (__n > 0)                                                               \
				(text)->length = __at + __n;                                       \
		}                                                                                  \
		__n;                                                                               \
	})

/*
 * Append the path of (mnt, dentry). Returns false when it was cut: deeper than
 * PATH_COMPONENTS, longer than TASK_PATH_LIMIT, or no room.
 */
static __always_inline bool text_append_path(struct text *text, struct vfsmount *mnt,
					     struct dentry *dentry)
{
	u32 begin = text->length;

	text->dentry = (u64)dentry;
	text->mount = (u64)real_mount(mnt);
	for (int i = 0; i < PATH_COMPONENTS; i++) {
		struct dentry *at = (void *)text->dentry;
		struct mount *mount = (void *)text->mount;
		struct dentry *parent = BPF_CORE_READ(at, d_parent);

		if (at == BPF_CORE_READ(mount, mnt.mnt_root)) {
			struct mount *above = BPF_CORE_READ(mount, mnt_parent);

			if (above == mount)
				return true;
			text->dentry = (u64)BPF_CORE_READ(mount, mnt_mountpoint);
			text->mount = (u64)above;
			continue;
		}
		if (text->length - begin > TASK_PATH_LIMIT)
			return false;
		if (text_append(text, BPF_CORE_READ(at, d_name.name), NAME_SIZE) < 0)
			return false;
		if (at == parent) /* in no folder: an anonymous file */
			return true;
		text->dentry = (u64)parent;
	}
	return false;
}
