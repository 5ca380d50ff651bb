package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/testutil"
)

// TestExecPath compares the resolved path with the kernel's own answer, the link
// /proc/PID/exe, while the program runs.
func TestExecPath(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	plain := program(t, filepath.Join(dir, "plain"))

	// The program that waits is the nth that the process executes.
	checkNth := func(t *testing.T, cmd *exec.Cmd, n int) found {
		t.Helper()
		c := start(t, cmd)
		event := r.nth(t, "process.exec", c.Process.Pid, n)
		path, deleted := exePath(t, c.Process.Pid)
		assert.Equal(t, path, event.attributes["process.executable.path"])
		assert.Equal(t, filepath.Base(path), event.attributes["process.executable.name"])
		assert.Equal(t, deleted, event.attributes["linux.process.executable.deleted"] == true)
		assert.NotContains(t, event.attributes, "linux.process.executable.truncated")
		return event
	}
	check := func(t *testing.T, cmd *exec.Cmd) found {
		t.Helper()
		return checkNth(t, cmd, 1)
	}
	t.Run("plain", func(t *testing.T) {
		event := check(t, role(plain, "wait"))
		assert.Equal(t, plain, event.attributes["process.executable.path"])
	})
	t.Run("relative", func(t *testing.T) {
		cmd := role("./plain", "wait")
		cmd.Dir = dir
		event := check(t, cmd)
		assert.Equal(t, plain, event.attributes["process.executable.path"])
		assert.Equal(t, dir, event.attributes["process.working_directory"])
	})
	t.Run("symbolic link", func(t *testing.T) {
		link := filepath.Join(dir, "link")
		require.NoError(t, os.Symlink(plain, link))
		event := check(t, role(link, "wait"))
		assert.Equal(t, plain, event.attributes["process.executable.path"])
	})
	t.Run("1,000 characters in long names", func(t *testing.T) {
		path := filepath.Join(dir, strings.Repeat(strings.Repeat("d", 250)+"/", 5), "program")
		check(t, role(program(t, path), "wait"))
	})
	t.Run("1,200 characters in 200 names", func(t *testing.T) {
		path := filepath.Join(dir, strings.Repeat("short/", 200), "program")
		check(t, role(program(t, path), "wait"))
	})
	t.Run("name of 255 bytes", func(t *testing.T) {
		check(t, role(program(t, filepath.Join(dir, strings.Repeat("n", 255))), "wait"))
	})
	t.Run("bind mount", func(t *testing.T) {
		source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
		program(t, filepath.Join(source, "below/program"))
		require.NoError(t, os.Mkdir(target, 0o755))
		require.NoError(t, unix.Mount(source, target, "", unix.MS_BIND, ""))
		defer func() { assert.NoError(t, unix.Unmount(target, unix.MNT_DETACH)) }()
		event := check(t, role(filepath.Join(target, "below/program"), "wait"))
		assert.Equal(t, filepath.Join(target, "below/program"), event.attributes["process.executable.path"])
	})
	t.Run("bind mount of the file itself", func(t *testing.T) {
		target := filepath.Join(dir, "file")
		require.NoError(t, os.WriteFile(target, nil, 0o755))
		require.NoError(t, unix.Mount(plain, target, "", unix.MS_BIND, ""))
		defer func() { assert.NoError(t, unix.Unmount(target, unix.MNT_DETACH)) }()
		event := check(t, role(target, "wait"))
		assert.Equal(t, target, event.attributes["process.executable.path"])
	})
	t.Run("mount in a mount", func(t *testing.T) {
		outer := filepath.Join(dir, "outer")
		require.NoError(t, os.Mkdir(outer, 0o755))
		require.NoError(t, unix.Mount("tmpfs", outer, "tmpfs", 0, ""))
		defer func() { assert.NoError(t, unix.Unmount(outer, unix.MNT_DETACH)) }()
		inner := filepath.Join(outer, "a/inner")
		require.NoError(t, os.MkdirAll(inner, 0o755))
		require.NoError(t, unix.Mount("tmpfs", inner, "tmpfs", 0, ""))
		check(t, role(program(t, filepath.Join(inner, "program")), "wait"))
	})
	t.Run("chroot", func(t *testing.T) {
		root := filepath.Join(dir, "root")
		require.NoError(t, os.Mkdir(root, 0o755))
		// All of / stands there, for the program may need its libraries.
		require.NoError(t, unix.Mount("/", root, "", unix.MS_BIND|unix.MS_REC, ""))
		defer func() { assert.NoError(t, unix.Unmount(root, unix.MNT_DETACH)) }()
		cmd := role(plain, "wait")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		cmd.Dir = "/"
		event := check(t, cmd)
		assert.Equal(t, filepath.Join(root, plain), event.attributes["process.executable.path"])
		assert.Equal(t, root, event.attributes["process.working_directory"])
	})
	t.Run("deleted", func(t *testing.T) {
		event := checkNth(t, role(plain, "deleted:"+program(t, filepath.Join(dir, "deleted"))), 2)
		assert.Equal(t, true, event.attributes["linux.process.executable.deleted"])
		assert.NotContains(t, event.attributes, "linux.process.executable.memfd")
	})
	t.Run("memfd", func(t *testing.T) {
		event := checkNth(t, role(plain, "memfd"), 2)
		assert.Equal(t, "/memfd:anonymous", event.attributes["process.executable.path"])
		assert.Equal(t, true, event.attributes["linux.process.executable.memfd"])
	})
	t.Run("a file that is only called memfd", func(t *testing.T) {
		event := check(t, role(program(t, filepath.Join(dir, "memfd:not")), "wait"))
		assert.NotContains(t, event.attributes, "linux.process.executable.memfd")
	})
}

// TestExecPathTooDeep runs a program below more folders than the kernel side
// follows: the path is cut, says so, and looks like no absolute path.
func TestExecPathTooDeep(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	path := program(t, filepath.Join(t.TempDir(), strings.Repeat("d/", 300), "program"))
	c := start(t, role(path, "wait"))
	event := r.one(t, "process.exec", c.Process.Pid)
	assert.Equal(t, true, event.attributes["linux.process.executable.truncated"])
	got := event.attributes["process.executable.path"].(string)
	assert.False(t, strings.HasPrefix(got, "/"), got)
	assert.True(t, strings.HasSuffix(path, "/"+got), got)
	assert.Equal(t, "program", event.attributes["process.executable.name"])
}

func TestExecAttributes(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	before := time.Now()
	cmd := role("/proc/self/exe", "wait")
	cmd.Args = []string{"name", "secret"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	c := start(t, cmd)
	event := r.one(t, "process.exec", c.Process.Pid)
	self, _ := exePath(t, os.Getpid())
	for key, want := range map[string]any{
		"process.pid":                          int64(c.Process.Pid),
		"process.parent_pid":                   int64(os.Getpid()),
		"process.user.id":                      int64(65534),
		"process.real_user.id":                 int64(65534),
		"process.working_directory":            "/",
		"process.args_count":                   int64(2),
		"process.executable.path":              self,
		"linux.process.parent.executable.path": self,
	} {
		assert.Equal(t, want, event.attributes[key], key)
	}
	assert.NotContains(t, event.attributes, "process.command_args", "arguments are opt-in")
	assert.Equal(t, "exec "+self, event.Body().AsString())
	assert.Equal(t, plog.SeverityNumberInfo, event.SeverityNumber())
	// Wall-clock times agree with ours to what the clocks' comparison allows.
	assert.WithinRange(t, event.Timestamp().AsTime(), before.Add(-5*time.Millisecond), time.Now().Add(5*time.Millisecond))
	assert.False(t, event.ObservedTimestamp().AsTime().Before(event.Timestamp().AsTime().Add(-5*time.Millisecond)))
	created, err := time.Parse(time.RFC3339Nano, event.attributes["process.creation.time"].(string))
	require.NoError(t, err)
	assert.WithinRange(t, created, before.Add(-5*time.Millisecond), event.Timestamp().AsTime())
}

func TestExecDirectoryDeleted(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	dir := filepath.Join(t.TempDir(), "gone")
	require.NoError(t, os.Mkdir(dir, 0o755))
	cmd := exec.Command("/bin/sh", "-c", "rmdir "+dir+"; exec /proc/"+fmt.Sprint(os.Getpid())+"/exe")
	cmd.Env = []string{roleVariable + "=wait", "PATH=/bin:/usr/bin"}
	cmd.Dir = dir
	c := start(t, cmd)
	event := r.nth(t, "process.exec", c.Process.Pid, 2)
	assert.Equal(t, true, event.attributes["linux.process.working_directory.deleted"])
	assert.Equal(t, dir, event.attributes["process.working_directory"])
}

func TestExecScript(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script"), []byte("#!/proc/self/exe -x\n"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script"), fmt.Appendf(nil, "#!%s\n", program(t, filepath.Join(dir, "interpreter"))), 0o755))
	cmd := role("./script", "wait")
	cmd.Dir = dir
	c := start(t, cmd)
	event := r.one(t, "process.exec", c.Process.Pid)
	assert.Equal(t, "./script", event.attributes["linux.process.script"])
	assert.Equal(t, filepath.Join(dir, "interpreter"), event.attributes["linux.process.interpreter"])
	assert.Equal(t, filepath.Join(dir, "interpreter"), event.attributes["process.executable.path"])
}

func TestExecArgs(t *testing.T) {
	r := record(t, &Config{CaptureArgs: true, MaxArgsBytes: 8192}, testutil.EnvOptions{})
	t.Run("all", func(t *testing.T) {
		cmd := role("/proc/self/exe", "wait")
		cmd.Args = []string{"zero", "", "with space", "\xff not UTF-8", strings.Repeat("long", 1000)}
		c := start(t, cmd)
		event := r.one(t, "process.exec", c.Process.Pid)
		assert.Equal(t, []any{"zero", "", "with space", "\uFFFD not UTF-8", strings.Repeat("long", 1000)}, event.attributes["process.command_args"])
		assert.NotContains(t, event.attributes, "linux.process.args.truncated")
	})
	t.Run("cut", func(t *testing.T) {
		cmd := role("/proc/self/exe", "wait")
		cmd.Args = []string{"zero", strings.Repeat("x", 100_000)}
		c := start(t, cmd)
		event := r.one(t, "process.exec", c.Process.Pid)
		assert.Equal(t, true, event.attributes["linux.process.args.truncated"])
		args := event.attributes["process.command_args"].([]any)
		assert.Equal(t, []any{"zero", strings.Repeat("x", 8192-len("zero")-1)}, args)
		assert.Equal(t, int64(2), event.attributes["process.args_count"])
	})
}

// TestExecCapabilities lets nobody run a program of root's with the set-user-id bit.
func TestExecCapabilities(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	types, err := r.probe.env.Loader.Types()
	require.NoError(t, err)
	dir := t.TempDir()
	// Nobody must be able to get there.
	for _, folder := range []string{dir, filepath.Dir(dir)} {
		require.NoError(t, os.Chmod(folder, 0o755))
	}
	path := program(t, filepath.Join(dir, "program"))
	require.NoError(t, os.Chmod(path, 0o755|os.ModeSetuid))
	cmd := role(path, "wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	c := start(t, cmd)
	event := r.one(t, "process.exec", c.Process.Pid)
	assert.Equal(t, int64(0), event.attributes["process.user.id"])
	assert.Equal(t, int64(65534), event.attributes["process.real_user.id"])
	if kernel.TracepointArgs(types, "sched_prepare_exec") == 0 {
		assert.NotContains(t, event.attributes, "linux.process.capabilities.gained")
		return
	}
	gained := event.attributes["linux.process.capabilities.gained"].([]any)
	assert.Contains(t, gained, "CAP_DAC_OVERRIDE")
	assert.Contains(t, gained, "CAP_SETUID")

	again := start(t, role(path, "wait"))
	assert.NotContains(t, r.one(t, "process.exec", again.Process.Pid).attributes, "linux.process.capabilities.gained",
		"root gains nothing")
}
