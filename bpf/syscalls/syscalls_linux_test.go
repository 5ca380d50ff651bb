package syscalls

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/testutil"
)

const (
	countMetric    = "linux.syscall.count"
	errorsMetric   = "linux.syscall.errors"
	durationMetric = "linux.syscall.duration"
)

// observed is a probe and a workload that it observes.
type observed struct {
	*testutil.Worker
	env    probe.Env
	read   *testutil.Collection
	whose  []any // what the workload's resource has
	before testutil.Points
}

// observe starts a worker, and then the probe in scope process.
func observe(t *testing.T, config Config) *observed {
	t.Helper()
	testutil.RequireBPF(t)
	require.NoError(t, config.Validate())
	o := &observed{Worker: testutil.NewWorker(t), env: testutil.Env(t, testutil.EnvOptions{Scope: enrich.ScopeProcess})}
	o.start(t, config)
	o.whose = []any{"process.pid", o.PID}
	return o
}

func (o *observed) start(t *testing.T, config Config) {
	t.Helper()
	p := testutil.Start(t, Type(), &config, o.env)
	o.read = testutil.NewCollection(t, Type(), p, otlp.Options{Host: o.env.Identity.Host()})
	o.before = o.read.Points(t)
}

// container is a container.id.
const container = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"

// observeContainer starts a worker in a container's cgroup, and then the probe in
// scope container. Nothing but the worker and its children counts there.
func observeContainer(t *testing.T, config Config) (*observed, *testutil.Cgroup) {
	t.Helper()
	testutil.RequireBPF(t)
	cgroup := testutil.NewCgroup(t, fmt.Sprintf("/syscalls-%d/docker/%s", os.Getpid(), container))
	o := &observed{Worker: testutil.NewWorker(t), env: testutil.Env(t, testutil.EnvOptions{Scope: enrich.ScopeContainer})}
	require.NoError(t, cgroup.Enter(o.PID))
	o.start(t, config)
	o.whose = []any{"container.id", container}
	return o, cgroup
}

// do has a step done and returns what is counted afterwards.
func (o *observed) do(t *testing.T, step string) testutil.Points {
	t.Helper()
	o.Do(t, step)
	return o.read.Points(t)
}

// grown is how much the workload's series of a metric have grown since the start.
func (o *observed) grown(points testutil.Points, metric, call string, pairs ...any) int {
	pairs = append(append([]any{"linux.syscall.name", call}, o.whose...), pairs...)
	return int(points.Total(metric, pairs...) - o.before.Total(metric, pairs...))
}

// wantCalls checks the calls made, and the errors among them by name; the
// workload is the only one to make them.
func (o *observed) wantCalls(t *testing.T, points testutil.Points, call string, calls int, errors map[string]int) {
	t.Helper()
	require.Equal(t, calls, o.grown(points, countMetric, call), "calls of %s", call)
	all := 0
	for name, n := range errors {
		require.Equal(t, n, o.grown(points, errorsMetric, call, "error.type", name), "%s of %s", name, call)
		all += n
	}
	require.Equal(t, all, o.grown(points, errorsMetric, call), "errors of %s", call)
}

func TestCountsAreExact(t *testing.T) {
	testutil.CheckLeaks(t)
	o := observe(t, Config{})
	points := o.do(t, fmt.Sprintf("call 12345 %d", unix.SYS_GETPPID))
	o.wantCalls(t, points, "getppid", 12345, nil)
	points = o.do(t, fmt.Sprintf("call 55 %d", unix.SYS_GETPPID))
	o.wantCalls(t, points, "getppid", 12400, nil)
}

func TestErrorsAreExact(t *testing.T) {
	o := observe(t, Config{})
	require.Equal(t, "ENOENT", o.Do(t, "openat 1000"))
	require.Equal(t, "EBADF", o.Do(t, fmt.Sprintf("call 31 %d -1", unix.SYS_FCHDIR)))
	require.Equal(t, "EINVAL", o.Do(t, fmt.Sprintf("call 7 %d 99 0 0", unix.SYS_GETPRIORITY)))
	require.Equal(t, "EAGAIN", o.Do(t, "receive 17"))
	points := o.read.Points(t)
	o.wantCalls(t, points, "openat", 1000, map[string]int{"ENOENT": 1000})
	o.wantCalls(t, points, "fchdir", 31, map[string]int{"EBADF": 31})
	o.wantCalls(t, points, "getpriority", 7, map[string]int{"EINVAL": 7})
	o.wantCalls(t, points, "recvfrom", 17, map[string]int{"EAGAIN": 17})
}

func TestUnknownNumbers(t *testing.T) {
	o := observe(t, Config{})
	require.Equal(t, "ENOSYS", o.Do(t, "call 9 600"))
	require.Equal(t, "ENOSYS", o.Do(t, "call 4 100000"))
	require.Equal(t, "ENOSYS", o.Do(t, "call 2 1024"))
	points := o.do(t, "call 3 -5")
	o.wantCalls(t, points, "syscall_600", 9, map[string]int{"ENOSYS": 9})
	o.wantCalls(t, points, "unknown", 9, map[string]int{"ENOSYS": 9})
	require.EqualValues(t, unknownNumber, bpfSyscallNumberSYSCALL_UNKNOWN)
}

func TestCompatCalls(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64: other architectures have no 32-bit calls from 64-bit programs")
	}
	o := observe(t, Config{})
	o.Do(t, "compat 777 64") // getppid of i386
	points := o.do(t, "compat 5 600")
	o.wantCalls(t, points, "getppid", 777, nil)
	require.Equal(t, 777, o.grown(points, countMetric, "getppid", "linux.syscall.abi", "compat"))
	require.Equal(t, 5, o.grown(points, errorsMetric, "syscall_600", "linux.syscall.abi", "compat", "error.type", "ENOSYS"))
}

func TestInterruptedCallsAreNoErrors(t *testing.T) {
	o := observe(t, Config{})
	points := o.do(t, "restart 5")
	// A call that is restarted enters and leaves the kernel again.
	o.wantCalls(t, points, "readv", 6, nil)
	o.wantCalls(t, points, "rt_sigreturn", 5, nil)
	points = o.do(t, "interrupt 3")
	o.wantCalls(t, points, "clock_nanosleep", 3, nil)
	o.wantCalls(t, points, "rt_sigreturn", 8, nil)
}

func TestSignalReturns(t *testing.T) {
	o := observe(t, Config{})
	o.wantCalls(t, o.do(t, "signals 300"), "rt_sigreturn", 300, nil)
}

func TestExecve(t *testing.T) {
	o := observe(t, Config{})
	points := o.do(t, "exec-fail 40")
	o.wantCalls(t, points, "execve", 40, map[string]int{"ENOENT": 40})
	for range 3 {
		o.Do(t, "exec")
	}
	o.wantCalls(t, o.read.Points(t), "execve", 43, map[string]int{"ENOENT": 40})
}

// Calls that seccomp refuses never start, and yet return.
func TestSeccomp(t *testing.T) {
	o := observe(t, Config{})
	require.Equal(t, "EACCES", o.Do(t, fmt.Sprintf("seccomp 25 %d", unix.SYS_GETSID)))
	o.wantCalls(t, o.read.Points(t), "getsid", 25, map[string]int{"EACCES": 25})
}

// Exits never return; forks return twice; a killed task makes no call.
func TestForkAndExit(t *testing.T) {
	o, _ := observeContainer(t, Config{})
	before := threads(t, o.Worker)
	points := o.do(t, "fork 100")
	o.wantCalls(t, points, "clone", 100+threads(t, o.Worker)-before, nil)
	o.wantCalls(t, points, "exit_group", 100, nil)
	o.wantCalls(t, points, "exit", 0, nil)

	points = o.do(t, "fork-killed 20")
	o.wantCalls(t, points, "clone", 120+threads(t, o.Worker)-before, nil)
	o.wantCalls(t, points, "exit_group", 100, nil)

	points = o.do(t, "threads 30")
	o.wantCalls(t, points, "exit", 30, nil)
	o.wantCalls(t, points, "exit_group", 100, nil)

	// The worker's other threads are killed when it ends.
	o.End()
	points = o.read.Points(t)
	o.wantCalls(t, points, "exit", 30, nil)
	o.wantCalls(t, points, "exit_group", 101, nil)
}

// threads is how many threads workers have: Go's runtime clones them when it likes,
// and never ends one.
func threads(t *testing.T, workers ...*testutil.Worker) int {
	t.Helper()
	n := 0
	for _, w := range workers {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", w.PID))
		require.NoError(t, err)
		n += len(tasks)
	}
	return n
}

func TestInclude(t *testing.T) {
	o := observe(t, Config{Include: []string{"getppid", "openat"}})
	o.Do(t, fmt.Sprintf("call 50 %d", unix.SYS_GETPPID))
	o.Do(t, fmt.Sprintf("call 50 %d", unix.SYS_GETSID))
	o.Do(t, "call 50 600")
	points := o.do(t, "openat 20")
	o.wantCalls(t, points, "getppid", 50, nil)
	o.wantCalls(t, points, "openat", 20, map[string]int{"ENOENT": 20})
	for _, p := range points {
		require.Contains(t, []any{"getppid", "openat"}, p.Attributes["linux.syscall.name"])
	}
}

func TestExclude(t *testing.T) {
	o := observe(t, Config{Exclude: []string{"getppid", "exit_group"}, Latency: true})
	o.Do(t, fmt.Sprintf("call 50 %d", unix.SYS_GETPPID))
	o.Do(t, "fork 5")
	points := o.do(t, "call 50 600")
	require.Empty(t, points.Of(countMetric, "linux.syscall.name", "getppid"))
	require.Empty(t, points.Of(durationMetric, "linux.syscall.name", "getppid"))
	require.Empty(t, points.Of(countMetric, "linux.syscall.name", "exit_group"))
	o.wantCalls(t, points, "syscall_600", 50, map[string]int{"ENOSYS": 50})
}

func TestDurations(t *testing.T) {
	const n, each = 20, 10 * time.Millisecond
	o := observe(t, Config{Latency: true, LatencySyscalls: []string{"clock_nanosleep"}})
	truth, err := strconv.ParseFloat(o.Do(t, fmt.Sprintf("sleep %d %d", n, each)), 64)
	require.NoError(t, err)
	o.Do(t, fmt.Sprintf("call 50 %d", unix.SYS_GETPPID))
	points := o.read.Points(t)
	slept := points.Of(durationMetric, "process.pid", o.PID)
	require.Len(t, slept, 1, "nothing else is measured")
	p := slept[0]
	require.Equal(t, "clock_nanosleep", p.Attributes["linux.syscall.name"])
	require.EqualValues(t, n, p.Count)
	require.GreaterOrEqual(t, p.Min, each.Seconds())
	require.GreaterOrEqual(t, p.Sum, n*each.Seconds())
	require.LessOrEqual(t, p.Sum, truth/1e9, "the caller waits a little longer than the kernel")
	require.Greater(t, p.Sum, 0.9*truth/1e9)

	truth, err = strconv.ParseFloat(o.Do(t, "interrupt 2"), 64)
	require.NoError(t, err)
	count, sum := o.read.Points(t).Distribution(durationMetric, "process.pid", o.PID)
	require.EqualValues(t, n+2, count)
	require.LessOrEqual(t, sum-p.Sum, truth/1e9, "not the 20 s that were asked for")
}

// Every call that is counted and returns is measured.
func TestDurationsOfAll(t *testing.T) {
	o, _ := observeContainer(t, Config{Latency: true})
	o.Do(t, fmt.Sprintf("call 3000 %d", unix.SYS_GETPPID))
	o.Do(t, "fork 10")
	o.Do(t, "call 10 100000")
	points := o.do(t, "openat 100")
	for call, n := range map[string]uint64{"getppid": 3000, "openat": 100, "clone": 10, "unknown": 10} {
		count, sum := points.Distribution(durationMetric, "container.id", container, "linux.syscall.name", call)
		if call == "clone" { // Go's runtime may make a thread
			require.GreaterOrEqual(t, count, n, call)
		} else {
			require.Equal(t, n, count, call)
		}
		require.Positive(t, sum)
	}
	require.Empty(t, points.Of(durationMetric, "container.id", container, "linux.syscall.name", "exit_group"))
}

func TestSelfIsExcluded(t *testing.T) {
	testutil.RequireBPF(t)
	worker := testutil.NewWorker(t)
	env := testutil.Env(t, testutil.EnvOptions{Scope: enrich.ScopeProcess, SelfTGID: uint32(os.Getpid())})
	p := testutil.Start(t, Type(), &Config{Latency: true}, env)
	read := testutil.NewCollection(t, Type(), p, otlp.Options{})
	for range 1000 {
		unix.Getppid()
	}
	worker.Do(t, fmt.Sprintf("call 50 %d", unix.SYS_GETPPID))
	points := read.Points(t)
	require.EqualValues(t, 50, points.Total(countMetric, "process.pid", worker.PID, "linux.syscall.name", "getppid"))
	require.Empty(t, points.Of(countMetric, "process.pid", os.Getpid()))
	require.Empty(t, points.Of(durationMetric, "process.pid", os.Getpid()))
}

// More processes than CPUs call at once.
func TestContention(t *testing.T) {
	const n = 50000
	testutil.RequireBPF(t)
	cgroup := testutil.NewCgroup(t, fmt.Sprintf("/syscalls-%d/docker/%s", os.Getpid(), container))
	workers := make([]*testutil.Worker, 2*runtime.NumCPU())
	for i := range workers {
		workers[i] = testutil.NewWorker(t)
		require.NoError(t, cgroup.Enter(workers[i].PID))
	}
	o := &observed{env: testutil.Env(t, testutil.EnvOptions{Scope: enrich.ScopeContainer}), whose: []any{"container.id", container}}
	o.start(t, Config{})
	all := func(step string, meanwhile func()) {
		done := make(chan error)
		for _, w := range workers {
			w.Begin(t, step)
			go func() { _, err := w.Wait(); done <- err }()
		}
		for running := len(workers); running > 0; {
			select {
			case err := <-done:
				require.NoError(t, err)
				running--
			default:
				meanwhile()
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	getppid := fmt.Sprintf("call %d %d", n, unix.SYS_GETPPID)
	all(getppid, func() {})
	o.wantCalls(t, o.read.Points(t), "getppid", len(workers)*n, nil)

	o.before = o.read.Points(t)
	before := threads(t, workers...)
	all("fork 100", func() {})
	points := o.read.Points(t)
	o.wantCalls(t, points, "clone", len(workers)*100+threads(t, workers...)-before, nil)
	o.wantCalls(t, points, "exit_group", len(workers)*100, nil)

	// And while the maps are read: a classic tracepoint's programs do not run on a CPU
	// where a task was preempted in the middle of reading a map.
	last := 0
	all(getppid, func() {
		calls := o.grown(o.read.Points(t), countMetric, "getppid")
		require.GreaterOrEqual(t, calls, last)
		last = calls
	})
	points = o.read.Points(t)
	calls, skipped := o.grown(points, countMetric, "getppid"), int(points.Total(countMetric, "otel.metric.overflow", true))
	t.Logf("calls of any kind that lost their name: %d", skipped)
	require.GreaterOrEqual(t, calls+skipped, len(workers)*n)
	require.LessOrEqual(t, calls, len(workers)*n)
	if o.read.Probe().(*syscalls).counter == bpfProgSysExit {
		require.Zero(t, skipped)
	}
}

// When a container is gone, its last values stay, and the kernel's entries go.
func TestContainerGoes(t *testing.T) {
	o, cgroup := observeContainer(t, Config{})
	o.Do(t, "openat 33")
	points := o.do(t, fmt.Sprintf("call 100 %d", unix.SYS_GETPPID))
	o.wantCalls(t, points, "openat", 33, map[string]int{"ENOENT": 33})
	require.Empty(t, points.Of(countMetric, "container.id", container, "linux.syscall.name", "getppid", "process.pid", o.PID))

	o.End()
	o.read.Points(t)
	keys := o.keysOf(t, cgroup.ID)
	require.Positive(t, keys)
	require.Eventually(t, func() bool { return unix.Rmdir(cgroup.Dir) == nil }, 10*time.Second, 10*time.Millisecond)
	for deadline := time.Now().Add(20 * time.Second); o.keysOf(t, cgroup.ID) > 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of the container's %d keys stay in the map", o.keysOf(t, cgroup.ID), keys)
		}
		o.read.Points(t)
	}
	points = o.read.Points(t)
	o.wantCalls(t, points, "getppid", 100, nil)
	o.wantCalls(t, points, "openat", 33, map[string]int{"ENOENT": 33})
}

// keysOf is how many of the kernel's entries count under a scope.
func (o *observed) keysOf(t *testing.T, scope uint64) int {
	t.Helper()
	n := 0
	var key bpfSyscallKey
	var values []uint64
	entries := o.read.Probe().(*syscalls).collection.Maps[bpfMapCounts].Iterate()
	for entries.Next(&key, &values) {
		if key.Scope == scope {
			n++
		}
	}
	return n
}

// rarities are calls that no program makes, and that fail when made without arguments.
func rarities() []string {
	return []string{
		"nfsservctl", "lookup_dcookie", "kexec_load", "move_pages", "migrate_pages", "acct", "quotactl", "swapoff",
		"pivot_root", "add_key", "request_key", "mq_unlink", "mq_notify", "vmsplice", "io_destroy", "io_getevents",
		"name_to_handle_at", "open_by_handle_at", "fsconfig", "fspick", "move_mount", "process_madvise",
	}
}

// Past what the map holds, calls count under the overflow series: totals stay exact.
func TestOverflow(t *testing.T) {
	const each = 50
	testutil.RequireBPF(t)
	native, _ := tables(runtime.GOARCH)
	config := Config{Include: rarities()}
	require.NoError(t, config.Validate())
	workers := []*testutil.Worker{testutil.NewWorker(t), testutil.NewWorker(t), testutil.NewWorker(t)}
	env := testutil.Env(t, testutil.EnvOptions{Scope: enrich.ScopeProcess, MaxSeries: 1})
	read := testutil.NewCollection(t, Type(), testutil.Start(t, Type(), &config, env), otlp.Options{})
	calls := 0
	for number, name := range native {
		if !contains(config.Include, name) {
			continue
		}
		for _, w := range workers {
			w.Do(t, fmt.Sprintf("call %d %d 0 0 0 0 0 0", each, number))
			calls += each
		}
	}
	points := read.Points(t)
	overflow := points.Of(countMetric, "otel.metric.overflow", true)
	require.Len(t, overflow, 1)
	require.Positive(t, overflow[0].Value)
	require.EqualValues(t, calls, points.Total(countMetric))
	require.Less(t, len(points.Of(countMetric)), calls/each)
	failed := points.Total(errorsMetric)
	require.Positive(t, failed)
	require.Positive(t, points.Total(errorsMetric, "otel.metric.overflow", true))

	// The same for the limit of series that leave, on another reader of the same map.
	limited := testutil.NewCollection(t, Type(), testutil.Start(t, Type(), &config, testutil.Env(t, testutil.EnvOptions{
		Scope: enrich.ScopeProcess})), otlp.Options{MaxSeries: 5})
	for _, w := range workers {
		w.Do(t, fmt.Sprintf("call %d %d 0 0 0 0 0 0", each, unix.SYS_ACCT))
		w.Do(t, fmt.Sprintf("call %d %d 0 0 0 0 0 0", each, unix.SYS_MOVE_PAGES))
	}
	points = limited.Points(t)
	require.Len(t, points.Of(countMetric), 6)
	require.EqualValues(t, 6*each, points.Total(countMetric))
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func TestShape(t *testing.T) {
	o, _ := observeContainer(t, Config{Latency: true})
	o.Do(t, "openat 5")
	metrics := o.read.Metrics(t)
	metrics.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		id, ok := rm.Resource().Attributes().Get("container.id")
		return !ok || id.Str() != container
	})
	testutil.Golden(t, "shape.txt", testutil.Shape(metrics))
}

// libbpf-tools' syscount beside us counts the same.
func TestBesideSyscount(t *testing.T) {
	syscount, err := exec.LookPath("syscount")
	if err != nil {
		t.Skip("needs syscount of libbpf-tools")
	}
	testutil.RequireBPF(t)
	testutil.MountTracefs(t)
	o := observe(t, Config{})
	command := exec.CommandContext(t.Context(), syscount, "-p", strconv.Itoa(o.PID), "-d", "3", "-T", "100")
	var out strings.Builder
	command.Stdout = &out
	require.NoError(t, command.Start())
	require.Eventually(t, func() bool { return loaded(ebpf.TracePoint, "sys_exit") }, 10*time.Second, 10*time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	points := o.do(t, fmt.Sprintf("call 20000 %d", unix.SYS_GETPPID))
	require.NoError(t, command.Wait())
	o.wantCalls(t, points, "getppid", 20000, nil)
	for line := range strings.Lines(out.String()) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "getppid" {
			require.Equal(t, "20000", fields[1])
			return
		}
	}
	t.Fatalf("no getppid in syscount's output:\n%s", out.String())
}

// loaded tells whether a program is in the kernel.
func loaded(kind ebpf.ProgramType, name string) bool {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			return false
		}
		id = next
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		info, err := program.Info()
		program.Close()
		if err == nil && info.Type == kind && info.Name == name {
			return true
		}
	}
}
