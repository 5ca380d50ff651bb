package ebpfreceiver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"

	"otelcol-ebpf/bpf/process"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/testutil"
)

func TestBothSignals(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	path := program(t)
	u := create(t, NewFactory(), settings("both"), newConfig(t, execsOnly), "metrics logs")
	u.start(t)
	run(t, path)
	eventually(t, "the record of an exec", func() bool { return u.out.saw(path) == 1 })
	eventually(t, "two collections", func() bool { return u.out.collections() >= 2 })
	// What happens last is delivered by the shutdown.
	run(t, path)
	u.stop(t)
	if saw := u.out.saw(path); saw != 2 {
		t.Errorf("%d records of 2 execs", saw)
	}
	o := u.observation(t, "process")
	if total := u.out.latest.Total("linux.process.exec"); total != float64(o.Produced) || total < 2 {
		t.Errorf("the last collection has %v execs, the kernel counted %d", total, o.Produced)
	}
}

func TestMetricsOnly(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	u := create(t, NewFactory(), settings("metrics"), newConfig(t, execsOnly), "metrics")
	u.start(t)
	run(t, program(t))
	o := u.observation(t, "process")
	u.stop(t)
	if o.Produced != 0 || u.out.records != 0 {
		t.Errorf("%d events were produced for nobody", o.Produced)
	}
	if total := u.out.latest.Total("linux.process.exec"); total < 1 {
		t.Errorf("the metric says %v execs", total)
	}
}

func TestLogsOnly(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	path := program(t)
	u := create(t, NewFactory(), settings("logs"), newConfig(t, execsOnly), "logs")
	u.start(t)
	run(t, path)
	eventually(t, "the record of an exec", func() bool { return u.out.saw(path) == 1 })
	u.stop(t)
	if o := u.observation(t, "process"); o.CollectDuration != 0 || u.out.batches != 0 {
		t.Error("metrics were collected for nobody")
	}
}

// TestTracking: with processes as resources the probe reads records that nobody
// else wants, and nothing piles up in the ring.
func TestTracking(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	path := program(t)
	// Only the last collection, after the ring was drained: one that comes within the
	// linger of an exec finds a process that is gone and that nobody has told of yet.
	late := strings.Replace(execsOnly, "initial_delay: 0s", "initial_delay: 10m", 1)
	u := create(t, NewFactory(), settings("tracking"), newConfig(t, late+"scope: process\nlimits: {ring_buffer: 1MiB}"), "metrics")
	u.start(t)
	for range 100 {
		run(t, path)
	}
	u.stop(t)
	o := u.observation(t, "process")
	// An exec and an exit each; this process's forks are its own.
	if o.Produced < 200 || o.Read != o.Produced || o.Lost["decode_error"] != 0 {
		t.Errorf("produced %d, read %d, lost %v", o.Produced, o.Read, o.Lost)
	}
	if got := u.out.latest.Total("linux.process.exec", "process.executable.path", path); got != 100 {
		t.Errorf("%v execs have the program's path, want 100", got)
	}
}

func TestShutdownAnytime(t *testing.T) {
	checkDescriptors(t)
	f, c := NewFactory(), newConfig(t, execsOnly)
	u := create(t, f, settings("early"), c, "metrics logs")
	u.stop(t)
	u.stop(t)
	if err := u.Start(t.Context(), componenttest.NewNopHost()); err == nil {
		t.Error("a receiver that was shut down starts")
	}
	again := create(t, f, settings("early"), c, "metrics logs")
	if again.ebpfReceiver == u.ebpfReceiver {
		t.Error("the receiver that was shut down is handed out again")
	}
	// A late shutdown of the old one does not touch the new one.
	u.stop(t)
	if r := create(t, f, settings("early"), c, "logs"); r.ebpfReceiver != again.ebpfReceiver {
		t.Error("the second signal has another receiver")
	}
	again.stop(t)

	testutil.RequireBPF(t)
	// One of two signals was started when the Collector gives up.
	u = create(t, f, settings("early"), c, "metrics logs")
	if err := u.Start(t.Context(), componenttest.NewNopHost()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.CreateLogs(t.Context(), settings("early"), c, newSink()); err == nil {
		t.Error("a running receiver takes another consumer")
	}
	u.stop(t)
	if u.out.batches != 0 || u.out.records != 0 {
		t.Error("data were delivered before all consumers were ready")
	}
}

func TestRestart(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	f, c, path := NewFactory(), newConfig(t, execsOnly), program(t)
	for range 3 {
		u := create(t, f, settings("again"), c, "metrics logs")
		u.start(t)
		run(t, path)
		u.stop(t)
		if saw := u.out.saw(path); saw != 1 {
			t.Errorf("%d records of one exec", saw)
		}
	}
}

func TestTwoIDs(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	f, path := NewFactory(), program(t)
	one := create(t, f, settings("one"), newConfig(t, execsOnly), "metrics logs")
	two := create(t, f, settings("two"), newConfig(t, execsOnly), "metrics logs")
	one.start(t)
	two.start(t)
	run(t, path)
	one.stop(t)
	run(t, path)
	two.stop(t)
	if one.out.saw(path) != 1 || two.out.saw(path) != 2 {
		t.Errorf("%d and %d records, want 1 and 2", one.out.saw(path), two.out.saw(path))
	}
}

// TestSelf: what this process does is not seen, what its children do is.
func TestSelf(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	path := program(t)
	u := create(t, NewFactory(), settings("self"), newConfig(t, `
collection_interval: 1s
error_mode: propagate
scope: process
probes: {process: {}, syscalls: {}, scheduler: {}}
`), "metrics logs")
	u.start(t)
	run(t, path)
	u.stop(t)
	self := os.Getpid()
	if n := u.out.pids[int64(self)]; n != 0 {
		t.Errorf("%d records about the receiver itself", n)
	}
	if u.out.saw(path) != 2 || u.out.parents[int64(self)] != 2 { // exec and exit
		t.Errorf("%d records of the child, %d of children", u.out.saw(path), u.out.parents[int64(self)])
	}
	for _, metric := range []string{"linux.syscall.count", "linux.process.exec", "linux.process.exit"} {
		if n := u.out.latest.Total(metric); n == 0 {
			t.Errorf("%s is empty", metric)
		}
		if n := u.out.latest.Total(metric, "process.pid", self); n != 0 {
			t.Errorf("%s counts %v for the receiver itself", metric, n)
		}
	}
}

// TestNothingBeforeStart: the Collector's validate command runs constructors.
func TestNothingBeforeStart(t *testing.T) {
	before, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	u := create(t, NewFactory(), settings("validate"), newConfig(t, ""), "metrics logs")
	after, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if len(after) > len(before) {
		t.Errorf("%d descriptors were opened", len(after)-len(before))
	}
	u.stop(t)
}

func TestUnprivileged(t *testing.T) {
	w := testutil.NewWorker(t)
	if said := w.Do(t, "unprivileged propagate"); !strings.Contains(said, "CAP_BPF") || !strings.Contains(said, "CAP_PERFMON") {
		t.Errorf("Start says %s, which does not name what is missing", said)
	}
	if said := w.Do(t, "unprivileged ignore"); said != `"<nil>"` {
		t.Errorf("error_mode ignore: Start says %s", said)
	}
}

// statusHost is a host that wants to know.
type statusHost struct {
	component.Host
	mu     sync.Mutex
	events []componentstatus.Status
}

func (h *statusHost) Report(event *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event.Status())
}

func (h *statusHost) all() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprint(h.events)
}

// TestStatusOfBothSignals: each signal is a component to the Collector, and each
// hears what it has missed.
func TestStatusOfBothSignals(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	bad, good := newSource(), newSource()
	bad.startErr = errors.New("broken")
	f := newFactory([]probe.Type{good.probeType("good"), bad.probeType("bad")}, newInstances())
	u := create(t, f, settings("status"), sourceConfig(f), "metrics logs")
	for range 2 {
		host := &statusHost{Host: componenttest.NewNopHost()}
		if err := u.Start(t.Context(), host); err != nil {
			t.Fatal(err)
		}
		if got := host.all(); got != "[StatusRecoverableError]" {
			t.Errorf("status %s", got)
		}
	}
	u.stop(t)
}

// TestFailedStart: nothing is left, and the configuration can be used again.
func TestFailedStart(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	s := newSource()
	s.startErr = errors.New("broken")
	f := newFactory([]probe.Type{process.Type(), s.probeType("bad")}, newInstances())
	c := sourceConfig(f)
	c.ErrorMode, c.Limits.MaxSeries = "propagate", 100
	u := create(t, f, settings("failing"), c, "metrics logs")
	if err := u.Start(t.Context(), componenttest.NewNopHost()); !errors.Is(err, s.startErr) {
		t.Errorf("Start: %v", err)
	}
	s.startErr = nil
	again := create(t, f, settings("failing"), c, "metrics logs")
	again.start(t)
	run(t, program(t))
	// The Collector shuts down what it could not start.
	u.stop(t)
	again.stop(t)
	if again.out.batches == 0 {
		t.Error("nothing was collected")
	}
}

// TestBlockedConsumer: Shutdown returns at its deadline with the real probes, whose
// maps and ring buffer are closed under whoever still uses them.
func TestBlockedConsumer(t *testing.T) {
	testutil.RequireBPF(t)
	path := program(t)
	release := make(chan struct{})
	blocked := make(chan struct{}, 1000)
	u := create(t, NewFactory(), settings("blocked"), newConfig(t, execsOnly), "metrics logs")
	u.out.refuse = func(context.Context) error {
		blocked <- struct{}{}
		<-release
		return nil
	}
	u.start(t)
	run(t, path)
	<-blocked
	run(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := u.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Shutdown took %s", took)
	}
	close(release)
}
