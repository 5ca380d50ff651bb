package main

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/ring"
	"otelcol-ebpf/test/bench/empty"
)

// plainRecord is the size of the records that are read and thrown away.
const plainRecord = 128

// readRing fills and reads a ring buffer of the default size with the default
// linger. The filling thread is bound to a CPU and not counted as the reader's.
func readRing(q request) (values, error) {
	f, err := newFiller(make([]byte, plainRecord), 0, nil)
	if err != nil {
		return nil, err
	}
	defer f.close()
	reader, err := ring.NewReader(f.collection.Maps[empty.BpfMapEvents], f.collection.Maps[empty.BpfMapEventCounts], execLinger)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	short := atomic.Uint64{}
	go func() {
		done <- reader.Run(ctx, ring.Handler{
			Record: func(record []byte) error {
				if len(record) != plainRecord {
					short.Add(1)
				}
				return nil
			},
			Full:   func() bool { return false },
			Flush:  func() error { return nil },
			Detach: func() {},
		})
	}()
	allocated, spent, begin := mallocs(), ownTime(unix.CLOCK_PROCESS_CPUTIME_ID), time.Now()
	filled := make(chan time.Duration, 1)
	var failed error
	go func() {
		// Never unlocked: the thread, which is bound to a CPU, ends with this.
		runtime.LockOSThread()
		if failed = pin(q.CPU); failed == nil {
			failed = paced(q.Time, q.Count, f.run)
		}
		filled <- ownTime(unix.CLOCK_THREAD_CPUTIME_ID)
	}()
	filling := <-filled
	seconds := time.Since(begin).Seconds()
	stop()
	if err := errors.Join(failed, <-done); err != nil {
		return nil, err
	}
	spent = ownTime(unix.CLOCK_PROCESS_CPUTIME_ID) - spent - filling
	allocated = mallocs() - allocated
	counts, err := reader.Counts()
	if err != nil {
		return nil, err
	}
	if short.Load() > 0 {
		return nil, errors.New("records have another size than those that were sent")
	}
	v := values{
		"seconds": seconds, "cpu": float64(spent.Nanoseconds()), "allocs": float64(allocated),
		"read": float64(reader.Read()), "lost": float64(counts.RingFull), "produced": float64(counts.Produced),
	}
	v["all read"], v["all lost"], v["all produced"] = v["read"], v["lost"], v["produced"]
	return v, nil
}

// ownTime is the processor time of this process or thread.
func ownTime(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
