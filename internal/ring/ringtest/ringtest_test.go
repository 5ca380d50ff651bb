//go:build linux

package ringtest

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/goleak"

	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/ring"
	"otelcol-ebpf/internal/testutil"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// source is a program that sends events, and the reader of its ring buffer.
type source struct {
	program *ebpf.Program
	runs    *ebpf.Map
	reader  *ring.Reader
}

type options struct {
	ringBytes, recordSize, perSecond uint32
	linger                           time.Duration
}

func newSource(t *testing.T, o options) *source {
	t.Helper()
	testutil.RequireBPF(t)
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	if err := load.Set(spec, bpfVarRecordSize, o.recordSize); err != nil {
		t.Fatal(err)
	}
	c, err := load.New(load.Settings{RingBytes: o.ringBytes, EventsPerSecond: o.perSecond}).Load(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	reader, err := ring.NewReader(c.Maps[bpfMapEvents], c.Maps[bpfMapEventCounts], o.linger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The second time, for those tests that close it.
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	})
	return &source{program: c.Programs[bpfProgRingTest], runs: c.Maps[".bss"], reader: reader}
}

// send sends at least n events.
func (s *source) send(t *testing.T, n int) {
	t.Helper()
	if _, err := s.program.Run(&ebpf.RunOptions{Data: make([]byte, 14), Repeat: uint32(n)}); err != nil {
		t.Errorf("test run: %v", err)
	}
}

// sent is the number of events that were sent, by the program's own count.
func (s *source) sent(t *testing.T) uint64 {
	t.Helper()
	section, err := s.runs.LookupBytes(uint32(0))
	if err != nil {
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(section)
}

// sink is a handler that counts.
type sink struct {
	records, flushed, pending uint64
	latest                    time.Duration // longest delay of a record
	detached                  atomic.Bool
	record                    func([]byte) error
	flush                     func() error
}

func (s *sink) handler() ring.Handler {
	return ring.Handler{
		Record: func(record []byte) error {
			s.records++
			s.pending++
			sentAt := binary.NativeEndian.Uint64(record)
			s.latest = max(s.latest, time.Duration(kernel.Boot()-sentAt))
			if s.record != nil {
				return s.record(record)
			}
			return nil
		},
		Full: func() bool { return s.pending >= 512 },
		Flush: func() error {
			s.flushed += s.pending
			s.pending = 0
			if s.flush != nil {
				return s.flush()
			}
			return nil
		},
		Detach: func() { s.detached.Store(true) },
	}
}

// run runs the reader and returns what stops it and tells its error.
func (s *source) run(t *testing.T, into *sink) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.reader.Run(ctx, into.handler()) }()
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			t.Fatal("Run did not return")
			return nil
		}
	}
}

// check compares all counts with each other and with the program's own.
func (s *source) check(t *testing.T, got *sink) ring.Counts {
	t.Helper()
	counts, err := s.reader.Counts()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("sent %d: %+v, read %d, delay up to %s", s.sent(t), counts, s.reader.Read(), got.latest)
	if sent := s.sent(t); counts.Produced != sent {
		t.Errorf("produced %d, sent were %d", counts.Produced, sent)
	}
	if sum := s.reader.Read() + counts.RingFull + counts.RateLimited; counts.Produced != sum {
		t.Errorf("produced %d, but read + lost is %d", counts.Produced, sum)
	}
	if got.records != s.reader.Read() || got.flushed != got.records {
		t.Errorf("read %d, handled %d, flushed %d", s.reader.Read(), got.records, got.flushed)
	}
	if !got.detached.Load() {
		t.Error("Detach was not called")
	}
	return counts
}

// TestOverload sends more than the ring and the reader can take, from two CPUs.
func TestOverload(t *testing.T) {
	for _, o := range []options{
		{ringBytes: 4 << 10, recordSize: 64, linger: 10 * time.Millisecond},
		{ringBytes: 4 << 10, recordSize: 3000, linger: time.Millisecond},
		{ringBytes: 64 << 10, recordSize: 200, linger: 100 * time.Millisecond},
		{ringBytes: 64 << 10, recordSize: 128},
	} {
		s, got := newSource(t, o), &sink{}
		stop := s.run(t, got)
		var senders sync.WaitGroup
		for range 2 {
			senders.Go(func() {
				for range 20 {
					s.send(t, 10_000)
				}
			})
		}
		senders.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if counts := s.check(t, got); counts.RingFull == 0 || s.reader.Read() == 0 {
			t.Errorf("%+v: %d lost, %d read: nothing was overloaded", o, counts.RingFull, s.reader.Read())
		}
	}
}

func TestRateLimit(t *testing.T) {
	s, got := newSource(t, options{ringBytes: 16 << 10, recordSize: 64, perSecond: 1000}), &sink{}
	stop := s.run(t, got)
	for range 10 {
		s.send(t, 10_000)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if counts := s.check(t, got); counts.RateLimited == 0 || counts.RateLimited == counts.Produced {
		t.Errorf("%d of %d were refused", counts.RateLimited, counts.Produced)
	}
}

// TestDrain stops while everything still waits in the ring.
func TestDrain(t *testing.T) {
	s, got := newSource(t, options{ringBytes: 1 << 20, recordSize: 64, linger: time.Hour}), &sink{}
	stop := s.run(t, got)
	s.send(t, 1000)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if counts := s.check(t, got); s.reader.Read() < 1000 || counts.RingFull > 0 {
		t.Errorf("read %d of %d", s.reader.Read(), counts.Produced)
	}
}

// TestDelay sends one record now and then: each is handed on one linger later at
// the latest, give or take what a busy machine adds.
func TestDelay(t *testing.T) {
	const linger, busy = 20 * time.Millisecond, 2 * time.Second
	s := newSource(t, options{ringBytes: 64 << 10, recordSize: 64, linger: linger})
	flushed := make(chan struct{}, 100)
	got := &sink{}
	got.flush = func() error { flushed <- struct{}{}; return nil }
	stop := s.run(t, got)
	for range 10 {
		s.send(t, 1)
		select {
		case <-flushed:
		case <-time.After(busy):
			t.Fatal("the record was not handed on")
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	s.check(t, got)
	if got.latest > linger+busy {
		t.Errorf("delay %s, want at most the linger of %s", got.latest, linger)
	}
}

func TestDecodeErrors(t *testing.T) {
	s, got := newSource(t, options{ringBytes: 1 << 20, recordSize: 64}), &sink{}
	malformed := uint64(0)
	got.record = func([]byte) error {
		if got.records%3 == 0 {
			malformed++
			return errors.New("malformed")
		}
		return nil
	}
	stop := s.run(t, got)
	s.send(t, 1000)
	if err := stop(); err != nil {
		t.Error(err)
	}
	s.check(t, got)
	if malformed == 0 || s.reader.DecodeErrors() != malformed {
		t.Errorf("%d decode errors, want %d", s.reader.DecodeErrors(), malformed)
	}
}

// TestBlockedConsumer: the kernel side goes on, and counts what it cannot keep.
func TestBlockedConsumer(t *testing.T) {
	s := newSource(t, options{ringBytes: 4 << 10, recordSize: 64})
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	got := &sink{}
	got.flush = func() error {
		once.Do(func() { close(blocked) })
		<-release
		return nil
	}
	stop := s.run(t, got)
	s.send(t, 1)
	<-blocked
	s.send(t, 10_000) // returns: nothing waits for the reader
	close(release)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if counts := s.check(t, got); counts.RingFull == 0 {
		t.Error("nothing was lost: the ring cannot have been full")
	}
}

func TestFlushErrorEndsRun(t *testing.T) {
	s := newSource(t, options{ringBytes: 64 << 10, recordSize: 64})
	want := errors.New("no")
	got := &sink{flush: func() error { return want }}
	done := make(chan error, 1)
	go func() { done <- s.reader.Run(t.Context(), got.handler()) }()
	s.send(t, 1)
	if err := <-done; !errors.Is(err, want) {
		t.Errorf("Run: %v, want %v", err, want)
	}
}

func TestCloseUnblocks(t *testing.T) {
	s, got := newSource(t, options{ringBytes: 64 << 10, recordSize: 64}), &sink{}
	done := make(chan error, 1)
	go func() { done <- s.reader.Run(t.Context(), got.handler()) }()
	for range 2 {
		if err := s.reader.Close(); err != nil {
			t.Error(err)
		}
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run did not return")
	}
}

// TestCloseAnytime closes the reader wherever Run happens to be, as a shutdown does
// whose deadline has passed.
func TestCloseAnytime(t *testing.T) {
	for range 30 {
		s, got := newSource(t, options{ringBytes: 4 << 10, recordSize: 64, linger: time.Millisecond}), &sink{}
		started := make(chan struct{})
		var once sync.Once
		got.record = func([]byte) error {
			once.Do(func() { close(started) })
			return nil
		}
		var running sync.WaitGroup
		running.Go(func() {
			if err := s.reader.Run(t.Context(), got.handler()); err != nil {
				t.Error(err)
			}
		})
		running.Go(func() { s.send(t, 2000) })
		<-started
		if err := s.reader.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
		if got.flushed != got.records {
			t.Errorf("%d records read, %d handed on", got.records, got.flushed)
		}
	}
}
