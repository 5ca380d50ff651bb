package main

import (
	"fmt"

	"github.com/cilium/ebpf"

	"otelcol-ebpf/test/bench/empty"
)

// filler puts copies of a record into a ring buffer, from within the kernel.
type filler struct {
	collection *ebpf.Collection
	packet     *ebpf.RunOptions
	size       int
}

// perRun is how many records one call puts into the ring.
const perRun = 500

// newFiller returns a filler for the maps of include/event.h: its own, or those of a
// running probe. If pidOffset is not 0, there stands a number that shall differ
// between records.
func newFiller(record []byte, pidOffset int, maps map[string]*ebpf.Map) (*filler, error) {
	spec, err := empty.LoadBpf()
	if err != nil {
		return nil, err
	}
	for name := range spec.Programs {
		if name != empty.BpfProgFill {
			delete(spec.Programs, name)
		}
	}
	delete(spec.Maps, empty.BpfMapFloorCounts)
	delete(spec.Maps, empty.BpfMapFloorTasks)
	if events, ok := maps[empty.BpfMapEvents]; ok {
		spec.Maps[empty.BpfMapEvents].MaxEntries = events.MaxEntries()
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return nil, fmt.Errorf("load the filler: %w", err)
	}
	f := &filler{collection: collection, packet: &ebpf.RunOptions{Data: make([]byte, 14), Repeat: perRun}, size: len(record)}
	filling := empty.BpfFilling{
		Size:      uint32(len(record)),
		PidOffset: uint32(pidOffset), PidFirst: 1 << 22, PidCount: 4096,
	}
	if copy(filling.Record[:], record) < len(record) {
		f.close()
		return nil, fmt.Errorf("a record of %d bytes is too long", len(record))
	}
	if err := collection.Maps[empty.BpfMapFilling].Put(uint32(0), filling); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// run puts perRun records into the ring.
func (f *filler) run() error {
	if _, err := f.collection.Programs[empty.BpfProgFill].Run(f.packet); err != nil {
		return fmt.Errorf("run the filler: %w", err)
	}
	return nil
}

func (f *filler) close() { f.collection.Close() }
