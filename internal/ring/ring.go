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
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
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
func (r *Reader) Run(ctx context.Context, h Handler) error {
	stop := context.AfterFunc(ctx, func() {
		h.Detach()
		// Unblocks the read below, which then returns what is left and ErrFlushed.
		_ = r.ring.Flush()
	})
	defer stop()

	record := ringbuf.Record{}
	linger := newLinger(r.linger, r.ring.BufferSize())
	for {
		switch err := r.ring.ReadInto(&record); {
		case errors.Is(err, ringbuf.ErrFlushed):
			return h.Flush()
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("ring buffer: %w", err)
		}
		linger.wait(ctx, r.ring.AvailableBytes())
		linger.adapt(r.ring.AvailableBytes())
		if err := r.drain(&record, h); err != nil {
			return err
		}
	}
}

// drain handles the record that has been read and all that follow it, then
// flushes.
func (r *Reader) drain(record *ringbuf.Record, h Handler) error {
	for {
		r.handle(record.RawSample, h)
		if h.Full() {
			if err := h.Flush(); err != nil {
				return err
			}
		}
		if record.Remaining == 0 {
			return h.Flush()
		}
		switch err := r.ring.ReadInto(record); {
		case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, ringbuf.ErrClosed):
			return h.Flush()
		case err != nil:
			return fmt.Errorf("ring buffer: %w", err)
		}
	}
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
	return r.ring.Close()
}
