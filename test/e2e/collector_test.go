//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

const (
	// startTime is how long a Collector may take until it is ready: probes are verified by the kernel meanwhile.
	startTime = 60 * time.Second
	// stopTime is how long it may take to end.
	stopTime = 30 * time.Second
	// arrival is how long a record or a metric may take from the kernel to the file.
	arrival = 30 * time.Second
	// nobody is a user without any privilege.
	nobody = 65534

	ready = "Everything is ready"
)

// binary is the Collector under test.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("OTELCOL_EBPF_BINARY")
	if path == "" {
		t.Skip("OTELCOL_EBPF_BINARY is not set: run make e2e")
	}
	return path
}

// needRoot skips where BPF programs cannot be loaded; where REQUIRE_BPF is set that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	binary(t)
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_BPF") != "" {
		t.Fatal("root is missing, and REQUIRE_BPF is set")
	}
	t.Skip("root is missing")
}

// pipeline is the path of a configuration in testdata/pipelines.
func pipeline(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../testdata/pipelines", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sharedDir is a temporary folder in which every user may write.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// The folder that t.TempDir() makes one in is its owner's alone.
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// freeAddress is a loopback address at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// eventually calls check until it returns nil, and fails with its last error at the deadline.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// options say how a Collector is started.
type options struct {
	config string
	// set are settings over the configuration's, "receivers::ebpf::scope: host".
	set []string
	// env is added to the environment.
	env []string
	// asNobody starts it without privilege, except for the capabilities in caps.
	asNobody bool
	caps     []uintptr
}

func (o options) command(t *testing.T, verb ...string) *exec.Cmd {
	t.Helper()
	path := binary(t)
	if o.asNobody {
		path = reachable(t, path)
		o.config = reachable(t, o.config)
	}
	args := slices.Concat(verb, []string{"--config", o.config})
	for _, set := range o.set {
		args = append(args, "--config", "yaml:"+set)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), o.env...)
	cmd.Dir = "/"
	if o.asNobody {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
			AmbientCaps: o.caps,
		}
	}
	return cmd
}

// reachable is a path at which every user can read the file: a link, or a copy, in a folder of the test's, because the
// checkout may lie in somebody's home.
func reachable(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(sharedDir(t), filepath.Base(path))
	if os.Link(path, to) == nil {
		return to
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil { //nolint:gosec // every user shall run it
		t.Fatal(err)
	}
	return to
}

// A collector is a running Collector. It is killed when its test ends.
type collector struct {
	*exec.Cmd
	log logBuffer
	// exited is closed when the process has ended; err is then what Wait returned.
	exited chan struct{}
	err    error
}

// start starts a Collector and does not wait for anything.
func start(t *testing.T, o options) *collector {
	t.Helper()
	c := &collector{Cmd: o.command(t), exited: make(chan struct{})}
	c.Stdout, c.Stderr = &c.log, &c.log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-c.exited
		if t.Failed() {
			t.Logf("the log of Collector %d:\n%s", c.Process.Pid, c.log.String())
		}
	})
	return c
}

// startReady starts a Collector and waits until it is ready.
func startReady(t *testing.T, o options) *collector {
	t.Helper()
	c := start(t, o)
	c.waitReady(t, 1)
	return c
}

// waitReady waits until the Collector has been ready that many times.
func (c *collector) waitReady(t *testing.T, times int) {
	t.Helper()
	c.waitLog(t, startTime, ready, times)
}

// waitLog waits until the text is in the log that many times.
func (c *collector) waitLog(t *testing.T, limit time.Duration, text string, times int) {
	t.Helper()
	eventually(t, limit, func() error {
		log := c.log.String()
		if strings.Count(log, text) >= times {
			return nil
		}
		select {
		case <-c.exited:
			t.Fatalf("the Collector ended (%v) before it logged %q", c.err, text)
		default:
		}
		return fmt.Errorf("%q is not in the log %d times", text, times)
	})
}

// signal sends a signal.
func (c *collector) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// waitExit waits for the end and returns the exit code, −1 after a signal.
func (c *collector) waitExit(t *testing.T) int {
	t.Helper()
	select {
	case <-c.exited:
	case <-time.After(stopTime):
		t.Fatalf("the Collector still runs after %v", stopTime)
	}
	return c.ProcessState.ExitCode()
}

// A logBuffer is safe for concurrent use.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// kernelObjects are ids of what a process has in the kernel.
type kernelObjects struct {
	programs, maps, links map[uint32]bool
}

func (o kernelObjects) String() string {
	return fmt.Sprintf("%d programs, %d maps, %d links", len(o.programs), len(o.maps), len(o.links))
}

var objectLine = regexp.MustCompile(`(?m)^(prog_id|map_id|link_id):\s+(\d+)$`)

// objects finds what the process holds open; a link names its program too.
func (c *collector) objects(t *testing.T) kernelObjects {
	t.Helper()
	found := kernelObjects{map[uint32]bool{}, map[uint32]bool{}, map[uint32]bool{}}
	dir := fmt.Sprintf("/proc/%d/fdinfo", c.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		for _, m := range objectLine.FindAllStringSubmatch(string(text), -1) {
			id, err := strconv.ParseUint(m[2], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			switch m[1] {
			case "prog_id":
				found.programs[uint32(id)] = true
			case "map_id":
				found.maps[uint32(id)] = true
			case "link_id":
				found.links[uint32(id)] = true
			}
		}
	}
	return found
}

// left is what of the objects the kernel still has. It is nil when nothing is left.
func (o kernelObjects) left() error {
	var left []string
	for id := range o.programs {
		if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); !errors.Is(err, os.ErrNotExist) {
			left = append(left, fmt.Sprintf("program %d (%v, %v)", id, p, err))
			_ = p.Close()
		}
	}
	for id := range o.maps {
		if m, err := ebpf.NewMapFromID(ebpf.MapID(id)); !errors.Is(err, os.ErrNotExist) {
			left = append(left, fmt.Sprintf("map %d (%v, %v)", id, m, err))
			_ = m.Close()
		}
	}
	for id := range o.links {
		if l, err := link.NewFromID(link.ID(id)); !errors.Is(err, os.ErrNotExist) {
			left = append(left, fmt.Sprintf("link %d (%v)", id, err))
			if err == nil {
				_ = l.Close()
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left in the kernel: %s", strings.Join(left, ", "))
	}
	return nil
}

// descriptors counts the process's open files.
func (c *collector) descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
