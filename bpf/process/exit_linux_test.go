package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/testutil"
)

// TestExit compares what the probe says of an end with what wait4(2) says.
func TestExit(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	dir := t.TempDir()
	shell := func(script string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Dir = dir
		return cmd
	}
	for name, cmd := range map[string]*exec.Cmd{
		"success":           role("/proc/self/exe", "exit:0"),
		"code 3":            role("/proc/self/exe", "exit:3"),
		"code 255":          role("/proc/self/exe", "exit:255"),
		"leader ends first": role("/proc/self/exe", "leader"),
		"SIGTERM":           shell("kill -TERM $$"),
		"SIGKILL":           shell("kill -KILL $$"),
		"real-time signal":  shell("kill -35 $$"),
		"core dump":         shell("ulimit -c unlimited; kill -ABRT $$"),
		"no core dump":      shell("ulimit -c 0; kill -SEGV $$"),
	} {
		t.Run(name, func(t *testing.T) {
			_ = cmd.Run()
			status := waitStatus(t, cmd)
			if name == "leader ends first" {
				require.Equal(t, 7, status.ExitStatus(), "the last thread's code")
			}
			event := r.one(t, "process.exit", cmd.Process.Pid)
			assert.Len(t, r.all("process.exit", cmd.Process.Pid), 1)
			code, hasCode := event.attributes["process.exit.code"]
			assert.Equal(t, status.Exited(), hasCode)
			if status.Exited() {
				assert.Equal(t, int64(status.ExitStatus()), code)
				assert.Equal(t, status.ExitStatus() != 0, event.attributes["error.type"] != nil)
			} else {
				assert.Equal(t, signalName(uint32(status.Signal())), event.attributes["linux.process.exit.signal"])
				assert.Equal(t, event.attributes["linux.process.exit.signal"], event.attributes["error.type"])
			}
			assert.Equal(t, status.CoreDump(), event.attributes["linux.process.core_dumped"] == true)
			usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			assert.Equal(t, usage.Maxrss<<10, event.attributes["linux.process.max_rss"])
			assert.Positive(t, event.attributes["linux.process.lifetime"])
			assert.NotEmpty(t, event.attributes["process.executable.path"])
		})
	}
}

// TestExitOfThreads ends processes with many threads at once: one exit each.
func TestExitOfThreads(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{})
	const processes = 30
	pids := make([]int, processes)
	for i := range pids {
		// The Go runtime has several threads, which exit_group ends together.
		cmd := role("/proc/self/exe", "exit:"+strconv.Itoa(i))
		_ = cmd.Run()
		require.Equal(t, i, waitStatus(t, cmd).ExitStatus())
		pids[i] = cmd.Process.Pid
	}
	for i, pid := range pids {
		assert.Equal(t, int64(i), r.one(t, "process.exit", pid).attributes["process.exit.code"])
	}
	r.finish(t)
	for _, pid := range pids {
		assert.Len(t, r.all("process.exit", pid), 1)
	}
}

// TestCounts runs a known number of programs in a container's cgroup and finds
// exactly that number under the container's resource.
func TestCounts(t *testing.T) {
	const n = 40
	r := record(t, nil, testutil.EnvOptions{Scope: enrich.ScopeContainer})
	id := strings.Repeat("0123456789abcdef", 4)
	group := testutil.NewCgroup(t, fmt.Sprintf("test-%d/docker/%s", os.Getpid(), id))
	spawner := role("/proc/self/exe", fmt.Sprintf("spawn:%s %d", group.Dir, n))
	require.NoError(t, spawner.Run())

	metrics := r.collect(t)
	inside := map[string]any{"container.id": id}
	with := func(key string, value any) map[string]any { return map[string]any{"container.id": id, key: value} }
	assert.EqualValues(t, n, sum(metrics, "linux.process.exec", inside))
	assert.EqualValues(t, n, sum(metrics, "linux.process.created", with("linux.task.type", "process")))
	// The spawner itself ends there, too.
	assert.EqualValues(t, n+1, sum(metrics, "linux.process.exit", inside))

	// Nothing counts twice, and totals stay when the cgroup is gone.
	require.NoError(t, unix.Rmdir(group.Dir))
	metrics = r.collect(t)
	assert.EqualValues(t, n, sum(metrics, "linux.process.exec", inside))
}

// TestSignals sends a known number of signals to a process that ignores them, and
// one that ends it.
func TestSignals(t *testing.T) {
	const n = 500
	r := record(t, nil, testutil.EnvOptions{Scope: enrich.ScopeProcess, Track: true})
	c := start(t, role("/proc/self/exe", "wait"))
	for range n {
		require.NoError(t, c.Process.Signal(syscall.SIGWINCH))
	}
	require.NoError(t, c.Process.Kill())
	_ = c.Wait()
	metrics := r.collect(t)
	of := func(name, outcome string) map[string]any {
		return map[string]any{"process.pid": int64(c.Process.Pid), "linux.signal.name": name, "linux.signal.outcome": outcome}
	}
	assert.EqualValues(t, n, sum(metrics, "linux.signal.count", of("SIGWINCH", "sent")))
	assert.EqualValues(t, 1, sum(metrics, "linux.signal.count", of("SIGKILL", "fatal")))
	assert.EqualValues(t, 1, sum(metrics, "linux.process.exit", map[string]any{"process.pid": int64(c.Process.Pid), "error.type": "SIGKILL"}))
}

// TestCreated compares with /proc/stat's `processes`, which counts threads, too. It
// is read within and around the probe's life, so that it bounds the count.
func TestCreated(t *testing.T) {
	outer := forks(t)
	r := record(t, nil, testutil.EnvOptions{})
	inner := forks(t)
	for range 20 {
		require.NoError(t, exec.Command("/bin/true").Run())
	}
	inner = forks(t) - inner
	created := sum(r.collect(t), "linux.process.created", nil)
	outer = forks(t) - outer
	assert.GreaterOrEqual(t, created, inner)
	assert.LessOrEqual(t, created, outer)
	assert.GreaterOrEqual(t, inner, int64(20))
}

func forks(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "processes "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	t.Fatal("no processes in /proc/stat")
	return 0
}

// TestOOMKilled lets a process eat more memory than its cgroup may have.
func TestOOMKilled(t *testing.T) {
	const limit = 64 << 20
	r := record(t, nil, testutil.EnvOptions{Scope: enrich.ScopeContainer})
	id := strings.Repeat("fedcba9876543210", 4)
	group := testutil.NewCgroup(t, fmt.Sprintf("test-%d/docker/%s", os.Getpid(), id))
	group.Set(t, "memory.max", "memory.limit_in_bytes", strconv.Itoa(limit))
	c := start(t, role("/proc/self/exe", "hog"))
	require.NoError(t, group.Enter(c.Process.Pid))
	require.NoError(t, c.stdin.Close())
	_ = c.Wait()
	require.Equal(t, syscall.SIGKILL, waitStatus(t, c.Cmd).Signal())

	event := r.one(t, "process.oom_killed", c.Process.Pid)
	assert.Equal(t, plog.SeverityNumberError, event.SeverityNumber())
	assert.Equal(t, id, event.resource["container.id"])
	assert.Equal(t, "cgroup", event.attributes["linux.oom.constraint"])
	assert.Equal(t, int64(limit), event.attributes["linux.memory.limit"])
	assert.InDelta(t, limit, event.attributes["linux.memory.usage"], limit/20)
	metrics := r.collect(t)
	assert.EqualValues(t, oomKills(t, group), sum(metrics, "linux.memory.oom_kills", map[string]any{"container.id": id}))
	assert.EqualValues(t, 1, sum(metrics, "linux.memory.oom_kills", map[string]any{"container.id": id}))
}

// oomKills is the cgroup's own count.
func oomKills(t *testing.T, group *testutil.Cgroup) int64 {
	t.Helper()
	name := "memory.oom_control"
	if group.V2 {
		name = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(group.Dir, name))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	t.Fatalf("no oom_kill in %s", name)
	return 0
}

// TestOverflow gives the kernel's map fewer keys than there are: totals stay exact.
func TestOverflow(t *testing.T) {
	r := record(t, nil, testutil.EnvOptions{Scope: enrich.ScopeProcess, MaxSeries: 2, Track: true})
	const n = 60
	for range n {
		require.NoError(t, exec.Command("/bin/true").Run())
	}
	metrics := r.collect(t)
	assert.GreaterOrEqual(t, sum(metrics, "linux.process.exec", nil), int64(n))
	assert.Positive(t, sum(metrics, "linux.process.exec", map[string]any{"otel.metric.overflow": true}))
	assert.Equal(t, r.probe.table.Len(), r.probe.table.Cap(), "the kernel's map was meant to overflow")
}
