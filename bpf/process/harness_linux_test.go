package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/testutil"
)

// The test binary is its own workload: with this variable set it plays a part.
const roleVariable = "PROCESS_TEST_ROLE"

func TestMain(m *testing.M) {
	role, argument, _ := strings.Cut(os.Getenv(roleVariable), ":")
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "wait": // say so, and live until stdin is closed
		fmt.Println("ready")
		_, err = io.Copy(io.Discard, os.Stdin)
	case "exit":
		code, _ := strconv.Atoi(argument)
		os.Exit(code)
	case "leader":
		err = endLeaderFirst()
	case "memfd":
		err = execMemfd()
	case "deleted":
		err = execDeleted(argument)
	case "spawn":
		err = spawn(argument)
	case "hog":
		err = hog()
	default:
		err = fmt.Errorf("no such role: %s", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
}

// endLeaderFirst ends the first thread, and then the process by another one.
func endLeaderFirst() error {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		// Go has moved this goroutine. An exec makes its thread the first one.
		return unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	go func() {
		leader := fmt.Sprintf("/proc/self/task/%d/stat", os.Getpid())
		for {
			if stat, err := os.ReadFile(leader); err != nil || strings.Contains(string(stat), ") Z ") {
				os.Exit(7)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, _, err := unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	return err
}

// execMemfd runs this program from an anonymous file, in the role wait.
func execMemfd() error {
	fd, err := unix.MemfdCreate("anonymous", 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "memfd")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, self); err != nil {
		return err
	}
	return execFd(fd)
}

// execDeleted removes the program at path and runs it all the same.
func execDeleted(path string) error {
	fd, err := unix.Open(path, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return execFd(fd)
}

func execFd(fd int) error {
	return unix.Exec("/proc/self/fd/"+strconv.Itoa(fd), []string{"self"}, []string{roleVariable + "=wait"})
}

// spawn enters a cgroup and runs /bin/true a number of times: "cgroup-folder N".
func spawn(argument string) error {
	dir, times, _ := strings.Cut(argument, " ")
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	// The first command makes Go's runtime try out pidfds on a child of its own: let
	// that happen before it counts.
	if err := exec.Command("/bin/true").Run(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	for range n {
		if err := exec.Command("/bin/true").Run(); err != nil {
			return err
		}
	}
	return nil
}

// hog takes memory until it is killed.
func hog() error {
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	var hoard [][]byte
	for {
		page := make([]byte, 1<<20)
		for i := 0; i < len(page); i += os.Getpagesize() {
			page[i] = 1
		}
		hoard = append(hoard, page)
		if len(hoard) > 4096 {
			return fmt.Errorf("4 GiB and still alive")
		}
	}
}

// child is a running workload.
type child struct {
	*exec.Cmd
	stdin io.WriteCloser
}

func role(path, part string) *exec.Cmd {
	cmd := exec.Command(path)
	cmd.Env = []string{roleVariable + "=" + part}
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts a workload that says "ready" and waits for it to do so.
func start(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return &child{cmd, stdin}
}

// program is a copy of the test binary at path, whose folders are made.
func program(t *testing.T, path string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, self, 0o755))
	return path
}

// recorder runs the probe and keeps what it emits.
type recorder struct {
	probe      *process
	collection *testutil.Collection
	stop       context.CancelFunc
	done       chan error

	mu   sync.Mutex
	logs plog.Logs
}

func allEvents() []string { return []string{"process.exec", "process.exit", "process.oom_killed"} }

// classicVariable makes the tests use the hooks of the other kind than this kernel
// prefers, where it has both.
const classicVariable = "PROCESS_TEST_OTHER_HOOKS"

// hooks is the probe's type, with the hooks that the environment asks for.
func hooks(t *testing.T) probe.Type {
	t.Helper()
	kind := Type()
	if os.Getenv(classicVariable) == "" {
		return kind
	}
	testutil.MountTracefs(t)
	kind.New = func(config probe.Config, env probe.Env) (probe.Probe, error) {
		p, err := newProbe(config, env)
		p.(*process).classic = !p.(*process).classic
		return p, err
	}
	return kind
}

// TestOtherHooks runs the tests of execs and exits again with the hooks that this
// kernel does not prefer: they tell the same.
func TestOtherHooks(t *testing.T) {
	testutil.RequireBPF(t)
	types, err := testutil.Env(t, testutil.EnvOptions{}).Loader.Types()
	require.NoError(t, err)
	if kernel.TracepointArgs(types, "sched_prepare_exec") == 0 || kernel.TracepointArgs(types, "sched_process_exit") < 2 {
		t.Skip("this kernel has one kind of hooks only: its tracepoints do not tell enough")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^(TestExec|TestExit|TestCounts|TestGolden)", "-test.v")
	cmd.Env = append(os.Environ(), classicVariable+"=1")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Contains(t, string(output), "--- PASS: TestExecScript")
}

// record starts the probe with its records going to the recorder.
func record(t *testing.T, config *Config, o testutil.EnvOptions) *recorder {
	t.Helper()
	testutil.RequireBPF(t)
	if o.RingBytes == 0 {
		o.RingBytes = 1 << 20
	}
	if o.Events == nil {
		o.Events = allEvents()
	}
	if config == nil {
		config = Type().NewConfig().(*Config)
	}
	env := testutil.Env(t, o)
	r := &recorder{logs: plog.NewLogs(), done: make(chan error, 1)}
	r.probe = testutil.Start(t, hooks(t), config, env).(*process)
	options := otlp.Options{Host: env.Identity.Host(), Scale: o.Scale, MaxSeries: int(o.MaxSeries), ScopeName: "test"}
	r.collection = testutil.NewCollection(t, Type(), r.probe, options)
	logs := otlp.NewLogs(Type().Metadata, options, func(_ context.Context, batch plog.Logs) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		batch.ResourceLogs().MoveAndAppendTo(r.logs.ResourceLogs())
		return nil
	})
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.probe.Run(ctx, logs) }()
	t.Cleanup(func() { r.finish(t) })
	return r
}

// finish stops the stream, drains it, and checks it against the metadata.
func (r *recorder) finish(t *testing.T) {
	t.Helper()
	if r.stop == nil {
		return
	}
	r.stop()
	r.stop = nil
	require.NoError(t, <-r.done)
	require.NoError(t, otlp.Check(Type().Metadata, r.logs))
	counts, err := r.probe.reader.Counts()
	require.NoError(t, err)
	require.Equal(t, counts.Produced, r.probe.reader.Read()+counts.RingFull+counts.RateLimited, "conservation")
	require.Zero(t, r.probe.reader.DecodeErrors())
}

// found is one log record with its resource's attributes.
type found struct {
	plog.LogRecord
	attributes, resource map[string]any
}

// all returns the records of an event about a process, in order.
func (r *recorder) all(event string, pid int) []found {
	r.mu.Lock()
	defer r.mu.Unlock()
	var result []found
	for _, rl := range r.logs.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, record := range sl.LogRecords().All() {
				attributes := record.Attributes().AsRaw()
				if record.EventName() == event && attributes["process.pid"] == int64(pid) {
					result = append(result, found{record, attributes, rl.Resource().Attributes().AsRaw()})
				}
			}
		}
	}
	return result
}

// one waits for the process's first record of an event.
func (r *recorder) one(t *testing.T, event string, pid int) found {
	t.Helper()
	return r.nth(t, event, pid, 1)
}

// nth waits for the process's nth record of an event, counted from 1.
func (r *recorder) nth(t *testing.T, event string, pid, n int) found {
	t.Helper()
	var result []found
	require.Eventually(t, func() bool {
		result = r.all(event, pid)
		return len(result) >= n
	}, 20*time.Second, 5*time.Millisecond, "%s of %d", event, pid)
	return result[n-1]
}

// collect reads the probe's metrics and checks them against the metadata.
func (r *recorder) collect(t *testing.T) pmetric.Metrics {
	t.Helper()
	return r.collection.Metrics(t)
}

// sum adds up a counter's points that have all the given attributes, those of the
// resource included.
func sum(metrics pmetric.Metrics, name string, want map[string]any) int64 {
	var pairs []any
	for key, value := range want {
		pairs = append(pairs, key, value)
	}
	return int64(testutil.PointsOf(metrics).Total(name, pairs...))
}

var _ probe.Probe = (*process)(nil)

// exePath is the independent truth about an executable: d_path's answer.
func exePath(t *testing.T, pid int) (path string, deleted bool) {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	require.NoError(t, err)
	return strings.CutSuffix(link, " (deleted)")
}

// waitStatus is the wait(2) status of a finished workload.
func waitStatus(t *testing.T, cmd *exec.Cmd) syscall.WaitStatus {
	t.Helper()
	return cmd.ProcessState.Sys().(syscall.WaitStatus)
}
