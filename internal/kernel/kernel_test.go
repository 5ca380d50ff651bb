package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRelease(t *testing.T) {
	release, err := Release()
	require.NoError(t, err)
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	require.NoError(t, err)
	assert.Equal(t, strings.TrimSpace(string(text)), release)
}

func TestSelfTGID(t *testing.T) {
	tgid, err := SelfTGID("/")
	require.NoError(t, err)
	assert.EqualValues(t, os.Getpid(), tgid)

	root := t.TempDir()
	_, err = SelfTGID(root)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "own process id")

	self := filepath.Join(root, "proc/self")
	require.NoError(t, os.Mkdir(filepath.Dir(self), 0o755))
	// In a container the host's /proc says another number than the container's own.
	require.NoError(t, os.Symlink("4194304", self))
	tgid, err = SelfTGID(root)
	require.NoError(t, err)
	assert.EqualValues(t, 4194304, tgid)

	for _, bad := range []string{"self", "-1", "99999999999", "12/task"} {
		require.NoError(t, os.Remove(self))
		require.NoError(t, os.Symlink(bad, self))
		_, err := SelfTGID(root)
		assert.Error(t, err, bad)
	}
}

func TestLockdown(t *testing.T) {
	root := t.TempDir()
	assert.Equal(t, "none", lockdown(root), "no securityfs")
	file := filepath.Join(root, "sys/kernel/security/lockdown")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	for text, want := range map[string]string{
		"[none] integrity confidentiality\n": "none",
		"none [integrity] confidentiality\n": "integrity",
		"none integrity [confidentiality]\n": "confidentiality",
		"":                                   "none",
		"none integrity":                     "none",
		"none [integrity":                    "none",
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		assert.Equal(t, want, lockdown(root), "%q", text)
	}
}

func TestWhatIsMissing(t *testing.T) {
	unsupported := fmt.Errorf("map create: %w", ebpf.ErrNotSupported)
	for name, c := range map[string]struct {
		facts facts
		want  []string
	}{
		"nothing":         {facts{}, nil},
		"integrity":       {facts{lockdown: "integrity"}, nil},
		"confidentiality": {facts{lockdown: "confidentiality"}, []string{"lockdown is in confidentiality mode", "boot with lockdown=integrity"}},
		"BTF":             {facts{release: "5.4.0", btf: errors.New("not found")}, []string{"kernel 5.4.0 has no BTF (not found): run a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs on /sys"}},
		"ring buffer":     {facts{release: "5.4.0", ring: unsupported}, []string{"kernel 5.4.0 has no BPF ring buffer: run Linux 5.10 or later"}},
		"seccomp":         {facts{ring: fmt.Errorf("map create: %w", unix.EPERM)}, []string{"bpf(2) is refused in spite of the capabilities", "seccomp profile"}},
		"something else":  {facts{ring: unix.ENOMEM}, []string{"BPF ring buffer: cannot allocate memory"}},
		"everything": {facts{release: "5.4.0", lockdown: "confidentiality", btf: errors.New("not found"), ring: unsupported}, []string{
			"confidentiality", "no BTF", "no BPF ring buffer",
		}},
	} {
		err := c.facts.check()
		if c.want == nil {
			assert.NoError(t, err, name)
			continue
		}
		for _, part := range c.want {
			assert.ErrorContains(t, err, part, name)
		}
	}
	var missing *Missing
	require.ErrorAs(t, facts{lockdown: "confidentiality"}.check(), &missing)
	assert.NotEmpty(t, missing.Remedy)
}

func TestMissingCapabilities(t *testing.T) {
	const (
		admin   = 1 << unix.CAP_SYS_ADMIN
		bpf     = 1 << unix.CAP_BPF
		perfmon = 1 << unix.CAP_PERFMON
	)
	for effective, want := range map[uint64]string{
		admin:                          "",
		bpf | perfmon:                  "",
		1<<63 - 1:                      "",
		bpf:                            "missing capabilities: CAP_PERFMON: run as root, or grant them",
		perfmon:                        "missing capabilities: CAP_BPF: run as root",
		0:                              "missing capabilities: CAP_BPF, CAP_PERFMON: run as root",
		^uint64(admin | bpf | perfmon): "missing capabilities: CAP_BPF, CAP_PERFMON",
	} {
		err := checkCapabilities(effective)
		if want == "" {
			assert.NoError(t, err, "%x", effective)
		} else {
			assert.ErrorContains(t, err, want, "%x", effective)
		}
	}
}

// TestUnprivileged asks CheckBPF in a process without any capability: this test,
// started again as nobody.
func TestUnprivileged(t *testing.T) {
	const nobody = 65534
	if os.Getenv("OTELCOL_EBPF_TEST_CHILD") == "1" {
		fmt.Printf("CheckBPF: %v\n", CheckBPF("/"))
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	// Nobody may not look into the folder that go test builds in.
	dir, err := os.MkdirTemp("/tmp", "unprivileged") //nolint:usetesting // t.TempDir's parents are closed to others
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o755))
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	copied := filepath.Join(dir, "kernel.test")
	require.NoError(t, os.WriteFile(copied, program, 0o755))

	command := exec.Command(copied, "-test.run", "^TestUnprivileged$", "-test.v")
	command.Env = append(os.Environ(), "OTELCOL_EBPF_TEST_CHILD=1", "GOCOVERDIR="+dir)
	command.Dir = dir
	if os.Geteuid() == 0 {
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	var said string
	for lines := bufio.NewScanner(strings.NewReader(string(output))); lines.Scan(); {
		if text, found := strings.CutPrefix(lines.Text(), "CheckBPF: "); found {
			said = text
		}
	}
	assert.Equal(t, "missing capabilities: CAP_BPF, CAP_PERFMON: "+
		"run as root, or grant them (setcap, AmbientCapabilities= in a unit, securityContext.capabilities in a pod)", said)
}

func kernelTypes(t *testing.T) *btf.Spec {
	t.Helper()
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skipf("needs BTF: %v", err)
	}
	types, err := btf.LoadKernelSpec()
	require.NoError(t, err)
	return types
}

func TestTracepointArgs(t *testing.T) {
	types := kernelTypes(t)
	assert.GreaterOrEqual(t, TracepointArgs(types, "sched_switch"), 3, "preempt, prev, next")
	assert.Equal(t, 2, TracepointArgs(types, "sys_exit"))
	assert.Equal(t, 1, TracepointArgs(types, "sched_wakeup"))
	assert.Zero(t, TracepointArgs(types, "there_is_no_such_tracepoint"))
	assert.Zero(t, TracepointArgs(types, ""))
}

// TestTracepointArgsOfOddTypes: what is named like a tracepoint and is none.
func TestTracepointArgsOfOddTypes(t *testing.T) {
	number := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	builder, err := btf.NewBuilder([]btf.Type{
		&btf.Typedef{Name: "btf_trace_int", Type: number},
		&btf.Typedef{Name: "btf_trace_pointer", Type: &btf.Pointer{Target: number}},
		&btf.Typedef{Name: "btf_trace_none", Type: &btf.Pointer{Target: &btf.FuncProto{Return: number}}},
		&btf.Typedef{Name: "btf_trace_one", Type: &btf.Pointer{Target: &btf.FuncProto{Return: number, Params: []btf.FuncParam{{Type: number}, {Type: number}}}}},
	}, nil)
	require.NoError(t, err)
	raw, err := builder.Marshal(nil, nil)
	require.NoError(t, err)
	types, err := btf.LoadSpecFromReader(strings.NewReader(string(raw)))
	require.NoError(t, err)
	for name, want := range map[string]int{"int": 0, "pointer": 0, "none": 0, "one": 1} {
		assert.Equal(t, want, TracepointArgs(types, name), name)
	}
	assert.False(t, HasHelper(types, "BPF_FUNC_map_lookup_elem"), "no enum bpf_func_id")
}

func TestHasHelper(t *testing.T) {
	types := kernelTypes(t)
	assert.True(t, HasHelper(types, "BPF_FUNC_map_lookup_elem"))
	assert.True(t, HasHelper(types, "BPF_FUNC_ringbuf_output"))
	assert.False(t, HasHelper(types, "BPF_FUNC_make_coffee"))
	assert.False(t, HasHelper(types, ""))
}
