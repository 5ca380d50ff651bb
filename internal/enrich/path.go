//go:build linux

package enrich

import "strings"

const (
	hexID    = 64 // docker, containerd, cri-o, podman: a SHA-256's worth of hex
	shortHex = 32 // a uid without dashes, an ECS task
	uuidLen  = 36
)

// ContainerFromPath reads from the path of a cgroup which container and which
// Kubernetes pod it belongs to; either is empty where the path does not say so.
// It is pure, and any string is allowed.
//
// The deepest container wins, so that a container inside a container is itself,
// while folders that an init system makes inside a container belong to it. The
// pod is the nearest one above. A folder of a pod that lies below another
// container (Kubernetes in Docker) but in none of its own has a pod and no
// container: the outer id would be the node's.
//
// What counts as a container:
//
//   - 64 hex digits as a folder's name, alone or behind a runtime's prefix
//     (docker-, cri-containerd-, crio-, libpod-, nerdctl-, …; ":cri-containerd:"), with or
//     without ".scope". A prefix that ends in "conmon" is the container's monitor,
//     which runs on the host.
//   - below a folder named ecs: Fargate's 32 hex digits, "-", digits.
//   - lxc/NAME, lxc.payload.NAME and lxc.payload/NAME: the id is NAME.
//
// A pod's uid is given with dashes. Static pods have 32 hex digits without dashes
// (the hash of their manifest, as the kubelet puts it); they are kept as they
// are. That hash is also what the mirror pod bears in its annotation
// kubernetes.io/config.hash, not the mirror pod's own uid.
//
// Deliberately not containers: machine-NAME.scope (systemd-nspawn, but virtual
// machines of libvirt look the same), BuildKit's steps (25 characters that no
// user can look up), and the pods of podman (libpod_pod_…, which hold no process).
func ContainerFromPath(path string) (containerID, podUID string) {
	end := len(path)
	for end > 0 {
		start := strings.LastIndexByte(path[:end], '/') + 1
		segment, parents := path[start:end], path[:max(start-1, 0)]
		if containerID == "" {
			containerID = containerOf(segment, parents)
		}
		if podUID = podOf(segment); podUID != "" {
			return containerID, podUID
		}
		end = start - 1
	}
	return containerID, ""
}

// containerOf returns the container that a folder called segment below parents
// is, or "".
func containerOf(segment, parents string) string {
	parent := parents[strings.LastIndexByte(parents, '/')+1:]
	name := strings.TrimSuffix(segment, ".scope")
	if len(name) >= hexID && isHex(name[len(name)-hexID:]) {
		prefix, id := name[:len(name)-hexID], name[len(name)-hexID:]
		switch {
		case prefix == "" && parent != "libpod_parent":
			return id
		case prefix != "" && isRuntime(prefix):
			return id
		}
		return ""
	}
	if payload, ok := strings.CutPrefix(segment, "lxc.payload."); ok {
		return payload
	}
	if segment != "" && segment != ".." && (parent == "lxc" || parent == "lxc.payload") {
		return segment
	}
	if isFargate(segment) && strings.Contains(parents+"/", "/ecs/") {
		return segment
	}
	return ""
}

// isRuntime tells whether what stands before the id, its separator included, is
// a runtime's prefix and not a monitor's.
func isRuntime(prefix string) bool {
	runtime, separator := prefix[:len(prefix)-1], prefix[len(prefix)-1]
	return runtime != "" && (separator == '-' || separator == ':') && !strings.HasSuffix(runtime, "conmon")
}

// isFargate tells 32 hex digits, "-", digits.
func isFargate(segment string) bool {
	task, number, ok := strings.Cut(segment, "-")
	if !ok || len(task) != shortHex || !isHex(task) || number == "" {
		return false
	}
	return strings.Trim(number, "0123456789") == ""
}

// podOf returns the pod's uid that a folder's name holds, or "": podUID,
// kubepods-…-podUID.slice with underscores, and the latter before a colon.
func podOf(segment string) string {
	if name, _, ok := strings.Cut(segment, ":"); ok {
		segment = name
	}
	uid, systemd := strings.CutSuffix(segment, ".slice")
	if systemd {
		at := strings.LastIndex(uid, "-pod")
		if at < 0 {
			return ""
		}
		uid = uid[at+1:]
	}
	uid, ok := strings.CutPrefix(uid, "pod")
	if !ok {
		return ""
	}
	if len(uid) == shortHex && isHex(uid) {
		return uid
	}
	return dashedUID(uid, systemd)
}

// dashedUID returns a UUID with dashes, or "" for anything else. The systemd
// driver writes underscores, for a dash nests slices.
func dashedUID(uid string, systemd bool) string {
	if len(uid) != uuidLen {
		return ""
	}
	for i := range len(uid) {
		switch i {
		case 8, 13, 18, 23:
			if uid[i] != '-' && (uid[i] != '_' || !systemd) {
				return ""
			}
		default:
			if !isHexDigit(uid[i]) {
				return ""
			}
		}
	}
	return strings.ReplaceAll(uid, "_", "-")
}

func isHex(s string) bool {
	for i := range len(s) {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

func isHexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
}
