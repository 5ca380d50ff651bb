// Package ring reads a probe's ring buffer: it blocks for the first record,
// lingers so that more can gather, drains the ring to empty, and blocks again.
//
// Draining a record costs some tens of nanoseconds, waking the reader tens of
// microseconds. The kernel's default notification wakes only a reader that has
// caught up, so a reader that lags on purpose is not woken for each record. What
// is paid for it is delay: at most the linger.
package ring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Counts are the kernel's own counts of a probe's events, summed over all CPUs
// (bpf/include/event.h). Produced = records that reached the ring + RingFull +
// RateLimited.
type Counts struct {
	Produced    uint64
	RingFull    uint64
	RateLimited uint64
}

// eventCounts is one CPU's value in the map event_counts: struct event_counts.
type eventCounts struct {
	Produced    uint64
	RingFull    uint64
	RateLimited uint64
}

// Reader drains one ring buffer. Run may be called once; the counters may be
// read at any time, from any goroutine.
type Reader struct {
	mu     sync.Mutex // held while the ring is closed or its fill level read
	closed bool
	ring   *ringbuf.Reader
	counts *ebpf.Map
	linger time.Duration

	read         atomic.Uint64
	decodeErrors atomic.Uint64
}

// NewReader returns a reader for the maps `events` and `event_counts` of
// bpf/include/event.h. The linger is the longest time a record waits in the ring
// on purpose; 0 reads each record as it comes. The maps stay the caller's.
func NewReader(events, counts *ebpf.Map, linger time.Duration) (*Reader, error) {
	ring, err := ringbuf.NewReader(events)
	if err != nil {
		return nil, fmt.Errorf("ring buffer: %w", err)
	}
	return &Reader{ring: ring, counts: counts, linger: linger}, nil
}

// Handler is what a probe does with its records.
type Handler struct {
	// Record takes one record. The bytes are valid only during the call. An
	// error means that the record is malformed: it is counted, and reading goes on.
	Record func(record []byte) error
	// Full tells that so many records are pending that they must be flushed
	// before more are read.
	Full func() bool
	// Flush hands on what is pending. It must do so after ctx is done, too: that is
	// when the last records come. An error ends Run.
	Flush func() error
	// Detach stops the kernel side; it is called when ctx is done, before the
	// last drain, so that no record comes after it.
	Detach func()
}

// Run reads until ctx is done, then detaches, drains what is left, flushes and
// returns nil. It returns an error when the ring cannot be read or Flush fails.
// When the reader is closed it hands on what it has read and returns nil.
func (r *Reader) Run(ctx context.Context, h Handler) error {
	stop := context.AfterFunc(ctx, func() {
		h.Detach()
		awaitPrograms()
		// Unblocks the read below, which then returns what is left and ErrFlushed.
		_ = r.ring.Flush()
	})
	defer stop()

	record := ringbuf.Record{}
	linger := newLinger(r.linger, r.ring.BufferSize())
	for {
		began := time.Now()
		if done, err := r.next(&record); done || err != nil {
			return errors.Join(err, h.Flush())
		}
		linger.quiet(time.Since(began))
		linger.wait(ctx, r.available())
		// What the record said of the rest of the ring was true before the linger.
		record.Remaining = r.available()
		linger.adapt(record.Remaining)
		if done, err := r.drain(&record, h); done || err != nil {
			return err
		}
	}
}

// awaitPrograms returns when every program that ran when it was called has ended:
// a detached program may still be in the middle of a record. The barrier over all
// processes is the kernel's synchronize_rcu, and programs run under RCU. Kernels
// with nohz_full refuse it; then it takes as long as any program may.
func awaitPrograms() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		time.Sleep(20 * time.Millisecond)
	}
}

// next reads one record; done tells that there will be no more.
func (r *Reader) next(record *ringbuf.Record) (done bool, err error) {
	switch err := r.ring.ReadInto(record); {
	case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, ringbuf.ErrClosed):
		return true, nil
	case err != nil:
		return true, fmt.Errorf("ring buffer: %w", err)
	}
	return false, nil
}

// drain handles the record that has been read and all that follow it, then
// flushes.
func (r *Reader) drain(record *ringbuf.Record, h Handler) (done bool, err error) {
	for {
		r.handle(record.RawSample, h)
		if h.Full() {
			if err := h.Flush(); err != nil {
				return true, err
			}
		}
		if record.Remaining == 0 {
			return false, h.Flush()
		}
		if done, err := r.next(record); done || err != nil {
			return true, errors.Join(err, h.Flush())
		}
	}
}

// available is the number of bytes that wait in the ring; 0 once it is closed,
// which unmaps it.
func (r *Reader) available() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	return r.ring.AvailableBytes()
}

func (r *Reader) handle(record []byte, h Handler) {
	r.read.Add(1)
	if err := h.Record(record); err != nil {
		r.decodeErrors.Add(1)
	}
}

// Read is the number of records taken from the ring so far.
func (r *Reader) Read() uint64 { return r.read.Load() }

// DecodeErrors is the number of records that were malformed.
func (r *Reader) DecodeErrors() uint64 { return r.decodeErrors.Load() }

// Counts reads the kernel's counts.
func (r *Reader) Counts() (Counts, error) {
	var (
		perCPU []eventCounts
		sum    Counts
	)
	if err := r.counts.Lookup(uint32(0), &perCPU); err != nil {
		return Counts{}, fmt.Errorf("event counts: %w", err)
	}
	for _, c := range perCPU {
		sum.Produced += c.Produced
		sum.RingFull += c.RingFull
		sum.RateLimited += c.RateLimited
	}
	return sum, nil
}

// Close releases the reader and unblocks Run. It is idempotent.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.ring.Close()
}
