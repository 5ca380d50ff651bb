package ebpfreceiver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/engine"
	"otelcol-ebpf/internal/testutil"
	"otelcol-ebpf/receiver/ebpfreceiver/internal/metadata"
)

// A worker must not get as far as TestMain, which mdatagen writes: variables come
// before it.
var _ = func() struct{} {
	testutil.ServeWorker(map[string]func(string) (string, error){
		"spawn":        spawn,
		"compare":      compare,
		"unprivileged": unprivileged,
	})
	return struct{}{}
}()

// spawn executes a program many times, one after the other: "1000 /path".
func spawn(argument string) (string, error) {
	count, path, _ := strings.Cut(argument, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	for range n {
		pid, err := syscall.ForkExec(path, []string{path}, nil)
		if err != nil {
			return "", err
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
			return "", err
		}
		if status.ExitStatus() != 0 {
			return "", fmt.Errorf("exit status %d", status.ExitStatus())
		}
	}
	return "", nil
}

// compare makes a system call that nobody else makes, many times; it fails.
func compare(argument string) (string, error) {
	n, err := strconv.Atoi(argument)
	for range n {
		_, _, _ = syscall.RawSyscall6(unix.SYS_KCMP, 0, 0, 99, 0, 0, 0)
	}
	return "", err
}

// newConfig is the configuration that the text says.
func newConfig(t *testing.T, text string) *config.Config {
	t.Helper()
	var values map[string]any
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	c := NewFactory().CreateDefaultConfig().(*config.Config)
	if err := confmap.NewFromStringMap(values).Unmarshal(c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// execsOnly runs the process probe with one kind of event.
const execsOnly = `
collection_interval: 1s
initial_delay: 0s
error_mode: propagate
probes:
  process:
    events:
      process.exit: {enabled: false}
      process.oom_killed: {enabled: false}
`

// sink is the consumer of both signals.
type sink struct {
	mutates bool
	// refuse decides on each batch of logs; nil takes all.
	refuse func(context.Context) error

	mu      sync.Mutex
	paths   map[string]int // executables of the records taken
	records int
	inside  int // those of the container
	batches int // of metrics
	points  int
	id      string // the container's id
	latest  testutil.Points
	parents map[int64]int
	pids    map[int64]int
}

func newSink() *sink {
	return &sink{paths: map[string]int{}, parents: map[int64]int{}, pids: map[int64]int{}}
}

func (s *sink) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: s.mutates}
}

func (s *sink) ConsumeLogs(ctx context.Context, logs plog.Logs) error {
	if s.refuse != nil {
		if err := s.refuse(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rl := range logs.ResourceLogs().All() {
		id, _ := rl.Resource().Attributes().Get("container.id")
		for _, sl := range rl.ScopeLogs().All() {
			for _, r := range sl.LogRecords().All() {
				s.records++
				if s.id != "" && id.Str() == s.id {
					s.inside++
				}
				path, _ := r.Attributes().Get("process.executable.path")
				parent, _ := r.Attributes().Get("process.parent_pid")
				pid, _ := r.Attributes().Get("process.pid")
				s.paths[path.Str()]++
				s.parents[parent.Int()]++
				s.pids[pid.Int()]++
			}
		}
	}
	return nil
}

func (s *sink) ConsumeMetrics(_ context.Context, metrics pmetric.Metrics) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches++
	s.points += metrics.DataPointCount()
	s.latest = testutil.PointsOf(metrics)
	return nil
}

// saw tells how many records there were of an executable.
func (s *sink) saw(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paths[path]
}

func (s *sink) collections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.batches
}

// unit is a receiver with its sink.
type unit struct {
	*ebpfReceiver
	out *sink
}

func settings(name string) receiver.Settings {
	set := receivertest.NewNopSettings(metadata.Type)
	set.ID = component.NewIDWithName(metadata.Type, name)
	return set
}

// create makes a receiver for metrics, logs or both.
func create(t *testing.T, f receiver.Factory, set receiver.Settings, c *config.Config, signals string) unit {
	t.Helper()
	u := unit{out: newSink()}
	if strings.Contains(signals, "metrics") {
		r, err := f.CreateMetrics(t.Context(), set, c, u.out)
		if err != nil {
			t.Fatal(err)
		}
		u.ebpfReceiver = r.(*ebpfReceiver)
	}
	if strings.Contains(signals, "logs") {
		r, err := f.CreateLogs(t.Context(), set, c, u.out)
		if err != nil {
			t.Fatal(err)
		}
		if u.ebpfReceiver != nil && r != receiver.Logs(u.ebpfReceiver) {
			t.Fatal("two receivers for one id")
		}
		u.ebpfReceiver = r.(*ebpfReceiver)
	}
	return u
}

// start starts it as often as there are signals, with a context that ends at once.
func (u unit) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range u.signals {
		if err := u.Start(ctx, componenttest.NewNopHost()); err != nil {
			t.Fatal(err)
		}
	}
}

// stop shuts it down as often.
func (u unit) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range u.signals {
		if err := u.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}
}

// observation is what the engine says of the probe.
func (u unit) observation(t *testing.T, name string) engine.Observation {
	t.Helper()
	for _, o := range u.engine.Observe() {
		if o.Probe == name {
			return o
		}
	}
	t.Fatalf("no probe %s", name)
	return engine.Observation{}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// checkDescriptors fails the test if it leaves descriptors of this process: BPF
// programs, maps and links live as long as those. Other tests load BPF programs
// at the same time, so the kernel's totals tell nothing.
func checkDescriptors(t *testing.T) {
	t.Helper()
	count := func() map[string]int {
		kinds := map[string]int{}
		links, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "anon_inode:") {
				kinds[to]++
			}
		}
		return kinds
	}
	before := count()
	t.Cleanup(func() {
		for kind, n := range count() {
			if n > before[kind] {
				t.Errorf("%d descriptors of %s are left", n-before[kind], kind)
			}
		}
	})
}

// program writes an executable with a path of its own that only exits with 0, and
// starts faster than anything with a C library.
func program(t *testing.T) string {
	t.Helper()
	code := []byte{0xb8, 0x3c, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // mov $60, %eax; xor %edi, %edi; syscall
	machine := uint16(62)
	if runtime.GOARCH == "arm64" {
		// mov x8, #93; mov x0, #0; svc #0
		code = []byte{0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4}
		machine = 183
	}
	const base, headers = 0x400000, 64 + 56
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	le := binary.LittleEndian
	elf = le.AppendUint16(elf, 2) // ET_EXEC
	elf = le.AppendUint16(elf, machine)
	elf = le.AppendUint32(elf, 1)
	elf = le.AppendUint64(elf, base+headers) // entry
	elf = le.AppendUint64(elf, 64)           // program headers
	elf = le.AppendUint64(elf, 0)            // section headers
	elf = le.AppendUint32(elf, 0)
	for _, n := range []uint16{64, 56, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, n)
	}
	elf = le.AppendUint32(elf, 1) // PT_LOAD
	elf = le.AppendUint32(elf, 5) // readable, executable
	size := uint64(headers + len(code))
	for _, n := range []uint64{0, base, base, size, size, 0x10000} {
		elf = le.AppendUint64(elf, n)
	}
	path := filepath.Join(t.TempDir(), "nothing")
	if err := os.WriteFile(path, append(elf, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

// run executes a program once, as a child of this process.
func run(t *testing.T, path string) {
	t.Helper()
	if _, err := spawn("1 " + path); err != nil {
		t.Fatal(err)
	}
}

// containerID is an id that no runtime has given.
func containerID(t *testing.T) string {
	t.Helper()
	var id [32]byte
	if _, err := rand.Read(id[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(id[:])
}
