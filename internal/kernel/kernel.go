//go:build linux

// Package kernel answers questions about the running kernel: its release, what
// it offers to BPF, how its clock relates to wall-clock time, and which process
// this is in the kernel's own eyes.
package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Release is the kernel's release as uname prints it: "6.1.0-38-cloud-amd64".
func Release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// SelfTGID is this process's thread group id in the pid namespace whose /proc is
// mounted below root: BPF programs see the initial namespace's ids, which a
// process in a container learns from the host's /proc.
func SelfTGID(root string) (uint32, error) {
	link, err := os.Readlink(filepath.Join(root, "proc/self"))
	if err != nil {
		return 0, fmt.Errorf("own process id: %w", err)
	}
	tgid, err := strconv.ParseUint(link, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("own process id: %w", err)
	}
	return uint32(tgid), nil
}

// Missing is something that the receiver cannot do without, and what to do
// about it.
type Missing struct {
	What   string
	Remedy string
}

func (m *Missing) Error() string {
	return m.What + ": " + m.Remedy
}

// capability is a Linux capability by number (include/uapi/linux/capability.h).
type capability struct {
	number uint
	name   string
}

// needed are the capabilities to load tracing programs since v5.8. CAP_SYS_ADMIN
// stands for both.
func needed() []capability {
	return []capability{{unix.CAP_BPF, "CAP_BPF"}, {unix.CAP_PERFMON, "CAP_PERFMON"}}
}

// CheckBPF tells whether this process can load tracing programs into this
// kernel. The error joins every *Missing that was found: capabilities, lockdown,
// BTF, ring buffers, each with what to do about it.
func CheckBPF(root string) error {
	effective, err := effectiveCapabilities()
	if err != nil {
		return err
	}
	if err := checkCapabilities(effective); err != nil {
		// Without them the questions below cannot be asked.
		return err
	}
	release, err := Release()
	if err != nil {
		return err
	}
	return facts{
		release:  release,
		lockdown: lockdown(root),
		btf:      findBTF(),
		ring:     features.HaveMapType(ebpf.RingBuf),
	}.check()
}

// facts are the answers that CheckBPF judges.
type facts struct {
	release, lockdown string
	// btf and ring are nil where the kernel has them.
	btf, ring error
}

func (f facts) check() error {
	var errs []error
	if f.lockdown == "confidentiality" {
		errs = append(errs, &Missing{
			"kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory",
			"boot with lockdown=integrity or without lockdown",
		})
	}
	if f.btf != nil {
		errs = append(errs, &Missing{
			"kernel " + f.release + " has no BTF (" + f.btf.Error() + ")",
			"run a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs on /sys",
		})
	}
	switch {
	case f.ring == nil:
	case errors.Is(f.ring, ebpf.ErrNotSupported):
		errs = append(errs, &Missing{"kernel " + f.release + " has no BPF ring buffer", "run Linux 5.10 or later"})
	case errors.Is(f.ring, unix.EPERM):
		errs = append(errs, &Missing{
			"bpf(2) is refused in spite of the capabilities (" + f.ring.Error() + ")",
			"run in the initial user namespace, and allow bpf(2) in the seccomp profile",
		})
	default:
		errs = append(errs, fmt.Errorf("BPF ring buffer: %w", f.ring))
	}
	return errors.Join(errs...)
}

func findBTF() error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err == nil {
		return nil
	}
	// A vmlinux with BTF in /boot or the like does as well.
	_, err := btf.LoadKernelSpec()
	return err
}

// effectiveCapabilities are those of this process, one bit each.
func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

func checkCapabilities(effective uint64) error {
	if effective>>unix.CAP_SYS_ADMIN&1 == 1 {
		return nil
	}
	var missing []string
	for _, c := range needed() {
		if effective>>c.number&1 == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &Missing{
		"missing capabilities: " + strings.Join(missing, ", "),
		"run as root, or grant them (setcap, AmbientCapabilities= in a unit, securityContext.capabilities in a pod)",
	}
}

// lockdown is the active mode of the lockdown LSM, or "none" where it is absent.
func lockdown(root string) string {
	text, err := os.ReadFile(filepath.Join(root, "sys/kernel/security/lockdown"))
	if err != nil {
		return "none"
	}
	_, after, found := strings.Cut(string(text), "[")
	mode, _, closed := strings.Cut(after, "]")
	if !found || !closed {
		return "none"
	}
	return mode
}

// TracepointArgs is the number of arguments that the raw tracepoint passes on
// this kernel; 0 when it does not exist. Their number grows from release to
// release: types is the running kernel's BTF.
func TracepointArgs(types *btf.Spec, name string) int {
	var tracepoint *btf.Typedef
	if err := types.TypeByName("btf_trace_"+name, &tracepoint); err != nil {
		return 0
	}
	pointer, ok := tracepoint.Type.(*btf.Pointer)
	if !ok {
		return 0
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 {
		return 0
	}
	// The first parameter is the tracepoint's own private data.
	return len(proto.Params) - 1
}

// HasHelper tells whether the running kernel knows the BPF helper, by the name
// it has in enum bpf_func_id: "BPF_FUNC_task_storage_get".
func HasHelper(types *btf.Spec, name string) bool {
	var functions *btf.Enum
	if err := types.TypeByName("bpf_func_id", &functions); err != nil {
		return false
	}
	for _, value := range functions.Values {
		if value.Name == name {
			return true
		}
	}
	return false
}
