//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const metadataYAML = `
type: %s
description: A probe for tests.
default: true
requires:
  kernel: "5.10"
  hooks: [{name: none, why: none}]
status: {stability: {beta: [metrics, logs]}}
attributes:
  number: {description: Number., type: int}
metrics:
  fake.calls:
    enabled: true
    description: Calls.
    unit: "{call}"
    sum: {value_type: int, monotonic: true, aggregation_temporality: cumulative}
    attributes: [number]
events:
  fake.happened:
    enabled: true
    description: It happened.
    severity: info
    attributes: [number]
`

// fake is a probe without a kernel.
type fake struct {
	newErr, startErr, collectErr, runErr error

	emit    chan int      // numbers of records to emit
	emitted chan struct{} // one for each record that was flushed

	mu                       sync.Mutex
	env                      probe.Env
	started, closed, streams int
	calls                    uint64
}

func newFake() *fake { return &fake{emit: make(chan int, 100), emitted: make(chan struct{}, 100)} }

type fakeConfig struct{}

func (fakeConfig) Validate() error { return nil }

func (f *fake) probeType(name string) probe.Type {
	return probe.Type{
		Metadata:  metadata.MustParse(fmt.Appendf(nil, metadataYAML, name)),
		NewConfig: func() probe.Config { return &fakeConfig{} },
		New: func(_ probe.Config, env probe.Env) (probe.Probe, error) {
			f.env = env
			return f, f.newErr
		},
	}
}

func (f *fake) Start(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started++
	return f.startErr
}

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

func (f *fake) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed > 0
}

func (f *fake) fail(collect error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.collectErr = collect
}

func (f *fake) Collect(m *otlp.Metrics) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	m.Counter("fake.calls").At(nil, otlp.Int("number", 1)).Add(1)
	return f.collectErr
}

func (f *fake) Run(ctx context.Context, logs *otlp.Logs) error {
	f.mu.Lock()
	f.streams++
	f.mu.Unlock()
	happened := logs.Event("fake.happened")
	emit := func(number int) error {
		happened.Append(nil, 1, 1, "it happened", 1).Int("number", int64(number))
		err := logs.Flush(ctx)
		f.emitted <- struct{}{}
		return err
	}
	for {
		if f.runErr != nil {
			return f.runErr
		}
		select {
		case number := <-f.emit:
			if err := emit(number); err != nil {
				return err
			}
		case <-ctx.Done():
			for len(f.emit) > 0 {
				if err := emit(<-f.emit); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

// consumers take what the engine delivers, as a test wants.
type consumers struct {
	mutates bool
	logs    func(context.Context, plog.Logs) error
	metrics func(context.Context, pmetric.Metrics) error

	mu      sync.Mutex
	numbers []int64 // of the log records that were taken
	calls   []int64 // of fake.calls, one for each collection that was taken
}

func (c *consumers) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{MutatesData: c.mutates}
}

func (c *consumers) ConsumeLogs(ctx context.Context, logs plog.Logs) error {
	if c.logs != nil {
		if err := c.logs(ctx, logs); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range records(logs) {
		number, _ := r.Attributes().Get("number")
		c.numbers = append(c.numbers, number.Int())
	}
	return nil
}

func records(logs plog.Logs) (all []plog.LogRecord) {
	for _, rl := range logs.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, r := range sl.LogRecords().All() {
				all = append(all, r)
			}
		}
	}
	return all
}

func (c *consumers) ConsumeMetrics(ctx context.Context, metrics pmetric.Metrics) error {
	if c.metrics != nil {
		if err := c.metrics(ctx, metrics); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := metrics.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Sum()
	c.calls = append(c.calls, sum.DataPoints().At(0).IntValue())
	return nil
}

func (c *consumers) taken() (numbers, calls []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.numbers), slices.Clone(c.calls)
}

// observer counts like ObsReport.
type observer struct {
	mu                                                       sync.Mutex
	acceptedLogs, refusedLogs, acceptedPoints, refusedPoints int
}

func (o *observer) StartMetricsOp(ctx context.Context) context.Context { return ctx }
func (o *observer) StartLogsOp(ctx context.Context) context.Context    { return ctx }

func (o *observer) EndMetricsOp(_ context.Context, _ string, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.refusedPoints += n
	} else {
		o.acceptedPoints += n
	}
}

func (o *observer) EndLogsOp(_ context.Context, _ string, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.refusedLogs += n
	} else {
		o.acceptedLogs += n
	}
}

func (o *observer) logs() (accepted, refused int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.acceptedLogs, o.refusedLogs
}

// statuses are the events that were reported.
type statuses struct {
	mu     sync.Mutex
	events []string
}

func (s *statuses) report(event *StatusEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case event.Err == nil:
		s.events = append(s.events, "ok")
	case event.Permanent:
		s.events = append(s.events, "permanent")
	default:
		s.events = append(s.events, "recoverable")
	}
}

func (s *statuses) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// bench is an engine on fakes.
type bench struct {
	*Engine
	out    *consumers
	count  *observer
	status *statuses
}

func newBench(t *testing.T, adjust func(*Settings), fakes ...*fake) *bench {
	t.Helper()
	var types []probe.Type
	for i, f := range fakes {
		types = append(types, f.probeType(fmt.Sprintf("fake%d", i)))
	}
	c := config.New(types)
	c.InitialDelay, c.CollectionInterval = 0, 5*time.Millisecond
	b := &bench{out: &consumers{}, count: &observer{}, status: &statuses{}}
	s := Settings{
		Logger: zaptest.NewLogger(t), Config: c, Metrics: b.out, Logs: b.out,
		Observe: b.count, Status: b.status.report,
		Retry: Retry{First: time.Millisecond, Longest: 5 * time.Millisecond, Total: 50 * time.Millisecond},
	}
	if adjust != nil {
		adjust(&s)
	}
	b.Engine = New(s)
	b.prepare = func(context.Context) (err error) {
		b.clock, err = kernel.NewClock()
		b.identity = enrich.New(enrich.Options{})
		return err
	}
	return b
}

func (b *bench) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	if err := b.Start(ctx); err != nil {
		t.Fatal(err)
	}
	// What runs does not depend on Start's context.
	cancel()
	b.Run()
}

func (b *bench) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func (b *bench) state(t *testing.T, i int) State {
	t.Helper()
	return b.Observe()[i].State
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func TestBothSignals(t *testing.T) {
	f := newFake()
	b := newBench(t, nil, f)
	b.start(t)
	eventually(t, "two collections", func() bool { _, calls := b.out.taken(); return len(calls) >= 2 })
	f.emit <- 1
	<-f.emitted
	// These wait when the shutdown comes, and are delivered all the same.
	for i := 2; i <= 50; i++ {
		f.emit <- i
	}
	b.stop(t)
	b.stop(t)
	numbers, calls := b.out.taken()
	if len(numbers) != 50 || numbers[0] != 1 || numbers[49] != 50 {
		t.Errorf("records %v", numbers)
	}
	if last := calls[len(calls)-1]; uint64(last) != f.calls {
		t.Errorf("the last collection says %d, want %d: it was not delivered", last, f.calls)
	}
	if f.closed != 1 || f.started != 1 || f.streams != 1 {
		t.Errorf("started %d, streamed %d, closed %d times", f.started, f.streams, f.closed)
	}
	if accepted, refused := b.count.logs(); accepted != 50 || refused != 0 {
		t.Errorf("accepted %d, refused %d", accepted, refused)
	}
	if b.count.acceptedPoints != len(calls) || b.count.refusedPoints != 0 {
		t.Errorf("points: %d accepted, %d refused, %d seen", b.count.acceptedPoints, b.count.refusedPoints, len(calls))
	}
	if got := b.status.all(); len(got) != 0 {
		t.Errorf("status %v, want nothing: the Collector reports that all is well", got)
	}
}

func TestOneSignal(t *testing.T) {
	f := newFake()
	b := newBench(t, func(s *Settings) { s.Logs = nil }, f)
	b.start(t)
	eventually(t, "a collection", func() bool { _, calls := b.out.taken(); return len(calls) > 0 })
	if f.env.Events("fake.happened") {
		t.Error("metrics only: events are wanted")
	}
	b.stop(t)
	if f.streams != 0 {
		t.Error("metrics only: records are read")
	}

	f = newFake()
	b = newBench(t, func(s *Settings) { s.Metrics = nil }, f)
	b.start(t)
	f.emit <- 1
	<-f.emitted
	b.stop(t)
	if numbers, _ := b.out.taken(); f.calls != 0 || len(numbers) != 1 {
		t.Errorf("logs only: %d collections, records %v", f.calls, numbers)
	}

	f = newFake()
	b = newBench(t, func(s *Settings) {
		s.Metrics = nil
		s.Config = config.New([]probe.Type{f.probeType("fake0")})
		s.Config.Probes()[0].Enabled = map[string]bool{"fake.happened": false}
	}, f)
	b.start(t)
	if f.started != 0 || b.state(t, 0) != stateIdle {
		t.Errorf("nothing is wanted: started %d, %s", f.started, b.state(t, 0))
	}
	b.stop(t)
}

// TestTrack: with scope process somebody must read the records, though nobody
// consumes logs, and none may pile up.
func TestTrack(t *testing.T) {
	f := newFake()
	b := newBench(t, func(s *Settings) { s.Logs = nil; s.Config.Scope = "process" }, f)
	b.start(t)
	f.emit <- 1
	<-f.emitted
	if !f.env.Track || f.env.Events("fake.happened") {
		t.Errorf("track %t, events %t", f.env.Track, f.env.Events("fake.happened"))
	}
	b.stop(t)
	if numbers, _ := b.out.taken(); len(numbers) != 0 {
		t.Errorf("records %v of events that nobody wants", numbers)
	}
}

func TestErrorMode(t *testing.T) {
	broken := errors.New("broken")
	for _, where := range []string{"new", "start", "unsupported"} {
		for _, mode := range []string{"ignore", "propagate"} {
			bad, good := newFake(), newFake()
			want := stateFailed
			switch where {
			case "new":
				bad.newErr = broken
			case "start":
				bad.startErr = broken
			case "unsupported":
				bad.startErr = fmt.Errorf("%w: %w", probe.ErrUnsupported, broken)
				want = stateUnsupported
			}
			b := newBench(t, func(s *Settings) { s.Config.ErrorMode = mode }, good, bad)
			err := b.Start(t.Context())
			if mode == "propagate" {
				if !errors.Is(err, broken) || good.closed != 1 {
					t.Errorf("%s: %v, other probe closed %d times", where, err, good.closed)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", where, err)
			}
			b.Run()
			eventually(t, "a collection", func() bool { _, calls := b.out.taken(); return len(calls) > 0 })
			if b.state(t, 0) != stateRunning || b.state(t, 1) != want {
				t.Errorf("%s: %s, %s", where, b.state(t, 0), b.state(t, 1))
			}
			if got := b.status.all(); !slices.Equal(got, []string{"recoverable"}) {
				t.Errorf("%s: status %v", where, got)
			}
			b.stop(t)
		}
	}
}

func TestNothingRuns(t *testing.T) {
	bad := newFake()
	bad.startErr = errors.New("broken")
	b := newBench(t, nil, bad)
	b.start(t)
	b.stop(t)
	if got := b.status.all(); !slices.Equal(got, []string{"permanent"}) {
		t.Errorf("status %v", got)
	}

	for _, mode := range []string{"ignore", "propagate"} {
		f, broken := newFake(), errors.New("no kernel")
		b = newBench(t, func(s *Settings) { s.Config.ErrorMode = mode }, f)
		b.prepare = func(context.Context) error { return broken }
		err := b.Start(t.Context())
		if mode == "propagate" {
			if !errors.Is(err, broken) {
				t.Error(err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
		}
		b.Run()
		if b.state(t, 0) != stateFailed {
			t.Errorf("state %s", b.state(t, 0))
		}
		b.stop(t)
		if got := b.status.all(); !slices.Equal(got, []string{"permanent"}) {
			t.Errorf("status %v", got)
		}
	}
}

func TestCollectFails(t *testing.T) {
	bad, good := newFake(), newFake()
	b := newBench(t, nil, bad, good)
	bad.collectErr = errors.New("broken")
	b.start(t)
	eventually(t, "ten collections", func() bool { _, calls := b.out.taken(); return len(calls) >= 10 })
	if b.state(t, 0) != stateDegraded || b.state(t, 1) != stateRunning {
		t.Errorf("states %s, %s", b.state(t, 0), b.state(t, 1))
	}
	if got := b.status.all(); !slices.Equal(got, []string{"recoverable"}) {
		t.Errorf("status %v", got)
	}
	bad.fail(nil)
	eventually(t, "recovery", func() bool { return slices.Equal(b.status.all(), []string{"recoverable", "ok"}) })
	if b.state(t, 0) != stateRunning {
		t.Errorf("state %s", b.state(t, 0))
	}
	b.stop(t)
}

func TestRunFails(t *testing.T) {
	bad, good := newFake(), newFake()
	bad.runErr = errors.New("broken")
	b := newBench(t, nil, bad, good)
	b.start(t)
	eventually(t, "the report", func() bool { return slices.Equal(b.status.all(), []string{"recoverable"}) })
	// Its metrics go on, and so does the other probe.
	if b.state(t, 0) != stateDegraded || b.state(t, 1) != stateRunning {
		t.Errorf("states %s, %s", b.state(t, 0), b.state(t, 1))
	}
	good.emit <- 7
	<-good.emitted
	b.stop(t)
	if numbers, _ := b.out.taken(); !slices.Equal(numbers, []int64{7}) {
		t.Errorf("records %v", numbers)
	}

	bad = newFake()
	bad.runErr = errors.New("broken")
	b = newBench(t, func(s *Settings) { s.Metrics = nil }, bad)
	b.start(t)
	eventually(t, "the report", func() bool { return slices.Equal(b.status.all(), []string{"permanent"}) })
	b.stop(t)
}

// lost is what a fake's records were refused.
func (b *bench) lost() (delivered, refused uint64) {
	e := b.Engine
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.probes {
		delivered += r.delivered.Load()
		refused += r.refused.Load()
	}
	return delivered, refused
}

func TestRefusals(t *testing.T) {
	later, never := errors.New("later"), consumererror.NewPermanent(errors.New("never"))
	for _, test := range []struct {
		name     string
		refuse   func(try int) error
		tries    int // -1: some
		accepted int
		status   []string
	}{
		{"permanent", func(int) error { return never }, 1, 0, []string{"recoverable"}},
		{"for a while", func(try int) error {
			if try < 3 {
				return later
			}
			return nil
		}, 3, 1, nil},
		{"for too long", func(int) error { return later }, -1, 0, []string{"recoverable"}},
	} {
		for _, mutates := range []bool{false, true} {
			f := newFake()
			b := newBench(t, func(s *Settings) { s.Metrics = nil }, f)
			b.out.mutates = mutates
			tries := 0
			b.out.logs = func(_ context.Context, logs plog.Logs) error {
				tries++
				if n := logs.LogRecordCount(); n != 1 {
					t.Errorf("%s: try %d has %d records", test.name, tries, n)
				}
				err := test.refuse(tries)
				if mutates {
					all := records(logs)
					if _, spoiled := all[0].Attributes().Get("spoiled"); spoiled {
						t.Errorf("%s: try %d got what an earlier one had changed", test.name, tries)
					}
					all[0].Attributes().PutBool("spoiled", true)
					if err != nil {
						logs.ResourceLogs().RemoveIf(func(plog.ResourceLogs) bool { return true })
					}
				}
				return err
			}
			b.start(t)
			f.emit <- 1
			<-f.emitted
			accepted, refused := b.count.logs()
			if accepted != test.accepted || refused != 1-test.accepted {
				t.Errorf("%s: accepted %d, refused %d", test.name, accepted, refused)
			}
			if d, r := b.lost(); int(d) != accepted || int(r) != refused {
				t.Errorf("%s: delivered %d, consumer_refused %d", test.name, d, r)
			}
			if test.tries >= 0 && tries != test.tries || tries < 1 {
				t.Errorf("%s: %d tries, want %d", test.name, tries, test.tries)
			}
			if got := b.status.all(); !slices.Equal(got, test.status) {
				t.Errorf("%s: status %v", test.name, got)
			}
			b.stop(t)
		}
	}
}

// TestPartialRefusal: a consumer that names what it refused is offered only that.
func TestPartialRefusal(t *testing.T) {
	f := newFake()
	b := newBench(t, func(s *Settings) { s.Metrics = nil }, f)
	tries := 0
	b.out.logs = func(_ context.Context, logs plog.Logs) error {
		if tries++; tries == 1 {
			part := plog.NewLogs()
			into := part.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
			records(logs)[1].CopyTo(into.AppendEmpty())
			return consumererror.NewLogs(errors.New("the second one"), part)
		}
		return consumererror.NewPermanent(errors.New("never"))
	}
	b.start(t)
	logs := plog.NewLogs()
	into := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	into.AppendEmpty()
	into.AppendEmpty()
	if err := b.logSink(b.probes[0])(t.Context(), logs); err != nil {
		t.Error(err)
	}
	if accepted, refused := b.count.logs(); accepted != 1 || refused != 1 || tries != 2 {
		t.Errorf("accepted %d, refused %d in %d tries", accepted, refused, tries)
	}
	if d, r := b.lost(); d != 1 || r != 1 {
		t.Errorf("delivered %d, consumer_refused %d", d, r)
	}
	b.stop(t)
}

// TestMetricsRefused: what is refused is contained in what is taken later.
func TestMetricsRefused(t *testing.T) {
	f := newFake()
	b := newBench(t, func(s *Settings) { s.Logs = nil }, f)
	var refusing sync.Map
	refusing.Store("metrics", true)
	b.out.metrics = func(context.Context, pmetric.Metrics) error {
		if _, yes := refusing.Load("metrics"); yes {
			return errors.New("later")
		}
		return nil
	}
	b.start(t)
	eventually(t, "refusals", func() bool {
		b.count.mu.Lock()
		defer b.count.mu.Unlock()
		return b.count.refusedPoints >= 3
	})
	refusing.Delete("metrics")
	eventually(t, "recovery", func() bool { return slices.Equal(b.status.all(), []string{"recoverable", "ok"}) })
	b.stop(t)
	_, calls := b.out.taken()
	if last := calls[len(calls)-1]; uint64(last) != f.calls || calls[0] < 3 {
		t.Errorf("sums %v of %d calls", calls, f.calls)
	}
}

// TestShutdownDeadline: a consumer that blocks for ever does not keep Shutdown,
// and one that heeds its context leaves time to count.
func TestShutdownDeadline(t *testing.T) {
	for _, signal := range []string{"logs", "metrics"} {
		for _, heeds := range []bool{false, true} {
			f := newFake()
			release, blocked := make(chan struct{}), make(chan struct{}, 100)
			b := newBench(t, nil, f)
			block := func(ctx context.Context) error {
				blocked <- struct{}{}
				if !heeds {
					<-release
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}
			if signal == "logs" {
				b.out.logs = func(ctx context.Context, _ plog.Logs) error { return block(ctx) }
			} else {
				b.out.metrics = func(ctx context.Context, _ pmetric.Metrics) error { return block(ctx) }
			}
			b.start(t)
			for i := range 10 {
				f.emit <- i
			}
			<-blocked
			ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
			began := time.Now()
			err := b.Shutdown(ctx)
			if !errors.Is(err, errCutShort) || errors.Is(err, context.DeadlineExceeded) == heeds {
				t.Errorf("%s, heeds %t: %v", signal, heeds, err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s, heeds %t: took %s", signal, heeds, took)
			}
			cancel()
			if !f.isClosed() {
				t.Errorf("%s, heeds %t: the probe is not closed", signal, heeds)
			}
			close(release)
			b.streams.Wait()
			b.collecting.Wait()
			accepted, refused := b.count.logs()
			if accepted+refused != 10 || signal == "logs" && heeds && refused != 10 {
				t.Errorf("%s, heeds %t: accepted %d, refused %d", signal, heeds, accepted, refused)
			}
		}
	}
}

// TestShutdownBoundsRetries: a consumer that refuses for now does not get the whole
// time for each batch that is left.
func TestShutdownBoundsRetries(t *testing.T) {
	f := newFake()
	b := newBench(t, func(s *Settings) {
		s.Metrics = nil
		s.Retry = Retry{First: time.Millisecond, Longest: time.Millisecond, Total: 300 * time.Millisecond}
	}, f)
	b.out.logs = func(context.Context, plog.Logs) error { return errors.New("later") }
	b.start(t)
	for i := range 100 {
		f.emit <- i
	}
	began := time.Now()
	b.stop(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s for 100 batches of at most 0.3 s", took)
	}
	if accepted, refused := b.count.logs(); accepted != 0 || refused != 100 {
		t.Errorf("accepted %d, refused %d", accepted, refused)
	}
}

// TestShutdownWithoutRun: what was loaded goes, and nothing is delivered.
func TestShutdownWithoutRun(t *testing.T) {
	f := newFake()
	b := newBench(t, nil, f)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.stop(t)
	if _, calls := b.out.taken(); f.closed != 1 || len(calls) != 0 {
		t.Errorf("closed %d times, collections %v", f.closed, calls)
	}
	b = newBench(t, nil, newFake())
	b.stop(t)
}

func TestStatus(t *testing.T) {
	var told statuses
	s := newStatusReporter(told.report)
	want := func(events ...string) {
		t.Helper()
		if got := told.all(); !slices.Equal(got, events) {
			t.Fatalf("told %v, want %v", got, events)
		}
	}
	s.resolved("a")
	want()
	if !s.recoverable("a", errors.New("a")) || s.recoverable("a", errors.New("a again")) {
		t.Error("new is what was not there")
	}
	want("recoverable")
	s.recoverable("b", errors.New("b"))
	want("recoverable", "recoverable")
	s.resolved("a")
	s.resolved("a")
	want("recoverable", "recoverable", "recoverable")
	s.resolved("b")
	want("recoverable", "recoverable", "recoverable", "ok")
	s.permanent(errors.New("c"))
	s.permanent(errors.New("c"))
	s.recoverable("a", errors.New("a"))
	s.resolved("a")
	want("recoverable", "recoverable", "recoverable", "ok", "permanent")

	told = statuses{}
	s = newStatusReporter(told.report)
	s.mute()
	s.recoverable("a", errors.New("a"))
	s.resolved("a")
	s.permanent(errors.New("b"))
	want()
	newStatusReporter(nil).permanent(errors.New("nobody listens"))
}
