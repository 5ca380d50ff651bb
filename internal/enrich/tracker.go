//go:build linux

package enrich

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"otelcol-ebpf/internal/load"
)

// cgroupEvent tells that a cgroup came or went.
type cgroupEvent struct {
	id      uint64
	removed bool
	// path is empty if the cgroup was removed, or if the kernel had no room for it.
	path string
}

// tracker hears from the kernel which cgroups come and go.
type tracker struct {
	collection *load.Collection
	links      []link.Link
	reader     *ringbuf.Reader
	handle     func(cgroupEvent)

	draining sync.Mutex
	flushed  chan struct{}
	done     chan struct{}
}

// trackerRing holds a few hundred events of cgroups, which take kilobytes at most.
const trackerRing = 256 << 10

// startTracker loads and attaches the programs for the hierarchy, and calls
// handle from a goroutine of its own with each event until stop. On an error it
// has released everything.
func startTracker(loader *load.Loader, hierarchy uint32, handle func(cgroupEvent)) (*tracker, error) {
	t := &tracker{handle: handle, flushed: make(chan struct{}), done: make(chan struct{})}
	spec, err := loadCgroup()
	if err != nil {
		return nil, fmt.Errorf("read cgroup object: %w", err)
	}
	if err := load.Set(spec, cgroupVarSettingHierarchy, hierarchy); err != nil {
		return nil, err
	}
	if t.collection, err = loader.WithRing(trackerRing).Load(spec); err != nil {
		return nil, fmt.Errorf("load cgroup programs: %w", err)
	}
	if t.reader, err = ringbuf.NewReader(t.collection.Maps[cgroupMapEvents]); err != nil {
		return nil, errors.Join(fmt.Errorf("open cgroup ring buffer: %w", err), t.release())
	}
	for _, name := range []string{cgroupProgCgroupMkdir, cgroupProgCgroupRmdir} {
		attached, err := link.AttachTracing(link.TracingOptions{Program: t.collection.Programs[name]})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s: %w", name, err), t.release())
		}
		t.links = append(t.links, attached)
	}
	go t.run()
	return t, nil
}

func (t *tracker) run() {
	defer close(t.done)
	var record ringbuf.Record
	for {
		err := t.reader.ReadInto(&record)
		switch {
		case err == nil:
			if event, err := decodeCgroup(record.RawSample); err == nil {
				t.handle(event)
			}
		case errors.Is(err, ringbuf.ErrFlushed):
			// Each flush has one who waits for it, until done at the latest.
			t.flushed <- struct{}{}
		default:
			return
		}
	}
}

// drain returns when every event that the kernel had sent before the call was
// handled, or the tracker was stopped.
func (t *tracker) drain() {
	t.draining.Lock()
	defer t.draining.Unlock()
	if t.reader.Flush() != nil {
		return
	}
	select {
	case <-t.flushed:
	case <-t.done:
	}
}

// lost returns how many events found the ring full.
func (t *tracker) lost() (uint64, error) {
	var counts []cgroupEventCounts
	if err := t.collection.Maps[cgroupMapEventCounts].Lookup(uint32(0), &counts); err != nil {
		return 0, fmt.Errorf("read cgroup event counts: %w", err)
	}
	var lost uint64
	for _, count := range counts {
		lost += count.RingFull
	}
	return lost, nil
}

// stop detaches, waits for the goroutine and releases everything. It is called
// once.
func (t *tracker) stop() error {
	// Close the reader first: Read blocks until it is closed.
	err := t.reader.Close()
	<-t.done
	return errors.Join(err, t.release())
}

func (t *tracker) release() error {
	var errs []error
	for _, attached := range t.links {
		errs = append(errs, attached.Close())
	}
	if t.reader != nil {
		errs = append(errs, t.reader.Close())
	}
	t.collection.Close()
	return errors.Join(errs...)
}

// eventHeader is the size of a record without the path.
const eventHeader = int(unsafe.Offsetof(cgroupCgroupEvent{}.Path))

// decodeCgroup reads one record: a header that tells the record's size, then the
// path's bytes.
func decodeCgroup(raw []byte) (cgroupEvent, error) {
	var record cgroupCgroupEvent
	if len(raw) < eventHeader || len(raw) > int(unsafe.Sizeof(record)) {
		return cgroupEvent{}, fmt.Errorf("cgroup event of %d bytes", len(raw))
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&record)), unsafe.Sizeof(record)), raw)
	if record.Header.Size < uint32(eventHeader) || int(record.Header.Size) > len(raw) {
		return cgroupEvent{}, fmt.Errorf("cgroup event of %d bytes that tells %d", len(raw), record.Header.Size)
	}
	event := cgroupEvent{id: record.Header.CgroupId}
	switch cgroupCgroupEventKind(record.Header.Kind) {
	case cgroupCgroupEventKindCGROUP_EVENT_MKDIR:
		event.path = string(raw[eventHeader:record.Header.Size])
	case cgroupCgroupEventKindCGROUP_EVENT_RMDIR:
		event.removed = true
	default:
		return cgroupEvent{}, fmt.Errorf("cgroup event of kind %d", record.Header.Kind)
	}
	return event, nil
}
