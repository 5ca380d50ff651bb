//go:build linux

package enrich

import (
	"bytes"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"otelcol-ebpf/internal/load"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -target bpfel -type exec_event -cflags "-O2 -g -Wall -Werror -I../../bpf/include" execs testdata/execs.bpf.c

// execs hears from the kernel which processes execute programs, in the terms of
// bpf/include/scope.h.
type execs struct {
	mu   sync.Mutex
	seen []execsExecEvent
}

func startExecs(t *testing.T, loader *load.Loader) *execs {
	t.Helper()
	spec, err := loadExecs()
	if err != nil {
		t.Fatal(err)
	}
	collection, err := loader.Load(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collection.Close)
	attached, err := link.AttachTracing(link.TracingOptions{Program: collection.Programs[execsProgExec]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { attached.Close() })
	reader, err := ringbuf.NewReader(collection.Maps[execsMapEvents])
	if err != nil {
		t.Fatal(err)
	}
	e, done := &execs{}, make(chan struct{})
	t.Cleanup(func() { reader.Close(); <-done })
	go func() {
		defer close(done)
		for {
			record, err := reader.Read()
			if err != nil {
				return
			}
			var event execsExecEvent
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&event)), unsafe.Sizeof(event)), record.RawSample)
			e.mu.Lock()
			e.seen = append(e.seen, event)
			e.mu.Unlock()
		}
	}()
	return e
}

// named waits for the first exec under the name; comm holds 15 bytes.
func (e *execs) named(t *testing.T, name string) execsExecEvent {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		e.mu.Lock()
		for _, event := range e.seen {
			comm := unsafe.Slice((*byte)(unsafe.Pointer(&event.Comm[0])), len(event.Comm))
			if end := bytes.IndexByte(comm, 0); string(comm[:max(end, 0)]) == name {
				e.mu.Unlock()
				return event
			}
		}
		e.mu.Unlock()
	}
	t.Fatalf("no exec of %s was seen", name)
	return execsExecEvent{}
}
