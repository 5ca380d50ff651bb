// Package table reads what BPF programs have aggregated: per-CPU hash maps whose
// values only grow. Each read hands out, for every key, what was added since the
// last one.
//
// Reads are batched: 10,000 entries cost 3 ms that way and 50 ms by iteration,
// which under churn also repeats keys.
package table

import (
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
)

// One system call asks for batchKeys keys, or fewer if their values, which are as
// many as there are CPUs, take more than batchBytes; but for leastKeys, because a
// call returns whole buckets of the hash.
const (
	batchKeys  = 1024
	batchBytes = 1 << 20
	leastKeys  = 16
)

// Entry is one key's state between reads.
type Entry[V comparable, S any] struct {
	// Last is the sum over all CPUs at the previous read, as Sum made it.
	Last V
	// State is the probe's own: the points that it adds this key's values to. It
	// starts as the zero value, and is set back to it when Owner changes.
	State S
	// Owner is whom CollectOwned found the key to count for; nil for the overflow
	// series.
	Owner *otlp.Resource

	seen uint64
}

// Table reads one map. K is the map's key, V its value as one CPU holds it, S
// what the probe keeps for each key. It is not safe for concurrent use.
type Table[K, V comparable, S any] struct {
	source  *ebpf.Map
	add     func(sum, cpu *V)
	cpus    int
	entries map[K]*Entry[V, S]
	length  atomic.Int64
	round   uint64

	// Buffers that are used again by every read, so that it does not allocate.
	keys       []K
	gone       []K
	values     []byte
	sum, value V
	stride     int
	size       int
}

// New returns a table for a per-CPU hash map. The add function adds one CPU's
// value to the sum. The map's value may be shorter than V, when V ends in an array
// whose length depends on a setting: then the rest of V stays zero. The map stays
// the caller's.
func New[K, V comparable, S any](source *ebpf.Map, add func(sum, cpu *V)) (*Table[K, V, S], error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("number of CPUs: %w", err)
	}
	var key K
	if source.Type() != ebpf.PerCPUHash || uintptr(source.KeySize()) != unsafe.Sizeof(key) {
		return nil, fmt.Errorf("table: %s is not a per-CPU hash with keys of %d bytes", source, unsafe.Sizeof(key))
	}
	var value V
	if uintptr(source.ValueSize()) > unsafe.Sizeof(value) {
		return nil, fmt.Errorf("table: values of %s are larger than %s", source, reflect.TypeFor[V]())
	}
	// The kernel lays out each CPU's value on a multiple of eight bytes.
	stride := (int(source.ValueSize()) + 7) &^ 7
	t := &Table[K, V, S]{
		source: source, add: add, cpus: cpus, stride: stride, size: int(source.ValueSize()),
		entries: map[K]*Entry[V, S]{},
	}
	t.allocate(min(batchKeys, max(leastKeys, batchBytes/(stride*cpus))))
	return t, nil
}

// allocate makes room for a batch of n keys.
func (t *Table[K, V, S]) allocate(n int) {
	t.keys, t.values = make([]K, n), make([]byte, n*t.stride*t.cpus)
}

// Len is the number of keys that the last read found. It may be called from any
// goroutine.
func (t *Table[K, V, S]) Len() int { return int(t.length.Load()) }

// Cap is the number of keys the map can hold.
func (t *Table[K, V, S]) Cap() int { return int(t.source.MaxEntries()) }

// Read calls visit once for every key in the map, with the sum over all CPUs and
// the entry, whose Last still is the previous sum. After it, Last is the sum. Keys
// that were deleted from the map are forgotten.
func (t *Table[K, V, S]) Read(visit func(key K, sum *V, entry *Entry[V, S])) error {
	return t.read(func(key K, sum *V, entry *Entry[V, S]) bool {
		visit(key, sum, entry)
		return true
	})
}

// read is Read with a visit that may refuse: then Last stays what it was, and the
// next read offers the difference again.
func (t *Table[K, V, S]) read(visit func(key K, sum *V, entry *Entry[V, S]) bool) error {
	t.round++
	var cursor ebpf.MapBatchCursor
	for {
		n, err := t.source.BatchLookup(&cursor, t.keys, t.values, nil)
		if errors.Is(err, unix.ENOSPC) && len(t.keys) < t.Cap() {
			// A bucket holds more keys than the batch. The cursor still points to it.
			t.allocate(2 * len(t.keys))
			continue
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read %s: %w", t.source, err)
		}
		for i := range n {
			t.visit(t.keys[i], t.values[i*t.stride*t.cpus:], visit)
		}
		if err != nil {
			break
		}
	}
	for key, entry := range t.entries {
		if entry.seen != t.round {
			delete(t.entries, key)
		}
	}
	t.length.Store(int64(len(t.entries)))
	return nil
}

// visit sums one key's values. The buffer is bytes, because a batch's values are
// packed with the map's own stride, which a Go slice of V does not have.
func (t *Table[K, V, S]) visit(key K, perCPU []byte, visit func(K, *V, *Entry[V, S]) bool) {
	entry, ok := t.entries[key]
	if !ok {
		entry = &Entry[V, S]{}
		t.entries[key] = entry
	}
	if entry.seen == t.round {
		// The batch met the key twice; its last value is already counted.
		return
	}
	entry.seen = t.round
	var zero V
	t.sum = zero
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&t.value)), t.size)
	for cpu := range t.cpus {
		copy(bytes, perCPU[cpu*t.stride:])
		t.add(&t.sum, &t.value)
	}
	// Most keys have not changed: a comparison is cheaper than writing memory.
	if visit(key, &t.sum, entry) && entry.Last != t.sum {
		entry.Last = t.sum
	}
}

// Collect calls visit for every key whose sum has changed since the last read, as
// Read does, and deletes from the map those that have not changed and that gone
// says nothing counts under any more. Nothing is lost with them: a key is deleted
// at the earliest by the read after its last change.
func (t *Table[K, V, S]) Collect(gone func(K) bool, visit func(key K, sum *V, entry *Entry[V, S])) error {
	return t.collect(gone, func(key K, sum *V, entry *Entry[V, S]) bool {
		visit(key, sum, entry)
		return true
	})
}

// Owners knows whom a scope (bpf/include/scope.h) counts for.
type Owners interface {
	// Owner is the resource of a scope, and whether that is final: one that is not
	// known yet may be so by the next collection.
	Owner(scope uint64) (resource *otlp.Resource, final bool)
	// Gone tells that nothing counts under the scope any more.
	Gone(scope uint64) bool
}

// CollectOwned is Collect for keys that belong to a scope: it keeps the entry's
// Owner, and leaves the counts of one that is not known yet for the next collection.
func (t *Table[K, V, S]) CollectOwned(owners Owners, scope func(K) uint64, visit func(key K, sum *V, entry *Entry[V, S])) error {
	gone := func(key K) bool { return owners.Gone(scope(key)) }
	return t.collect(gone, func(key K, sum *V, entry *Entry[V, S]) bool {
		if s := scope(key); s != load.OverflowScope {
			owner, final := owners.Owner(s)
			if !final {
				return false
			}
			if owner != entry.Owner {
				var fresh S
				entry.Owner, entry.State = owner, fresh
			}
		}
		visit(key, sum, entry)
		return true
	})
}

func (t *Table[K, V, S]) collect(gone func(K) bool, visit func(key K, sum *V, entry *Entry[V, S]) bool) error {
	t.gone = t.gone[:0]
	err := t.read(func(key K, sum *V, entry *Entry[V, S]) bool {
		switch {
		case *sum != entry.Last:
			return visit(key, sum, entry)
		case gone(key):
			t.gone = append(t.gone, key)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, key := range t.gone {
		if err := t.source.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from %s: %w", t.source, err)
		}
		delete(t.entries, key)
	}
	return nil
}
