package table

import (
	"math/bits"
	"structs"
	"unsafe"

	"otelcol-ebpf/internal/otlp"
)

// Histogram is bpf/include/histogram.h's struct histogram. bpf2go generates a type
// of its own for each probe; HistogramOf turns it into this one.
type Histogram struct {
	_ structs.HostLayout
	// Sum is in nanoseconds.
	Sum uint64
	// Min is the complement of the smallest duration in nanoseconds; 0: none yet.
	Min uint64
	// Max is the largest duration in nanoseconds.
	Max uint64
	// Slots are counts modulo 2^32.
	Slots [514]uint32
}

// HistogramOf views a probe's generated histogram type T as a Histogram. It panics
// if their sizes differ, which only a change of histogram.h can bring about.
func HistogramOf[T any](generated *T) *Histogram {
	if unsafe.Sizeof(*generated) != unsafe.Sizeof(Histogram{}) {
		panic("table: struct histogram has changed")
	}
	return (*Histogram)(unsafe.Pointer(generated))
}

// Add adds one CPU's histogram to the sum over all.
func (h *Histogram) Add(cpu *Histogram) {
	if cpu.Max == 0 && cpu.Slots[0] == 0 {
		// The usual case: most keys have never been seen on most CPUs.
		return
	}
	h.Sum += cpu.Sum
	// Complemented, the smallest duration is the largest number.
	h.Min = max(h.Min, cpu.Min)
	h.Max = max(h.Max, cpu.Max)
	for i, n := range cpu.Slots[:slotsUpTo(cpu.Max)] {
		h.Slots[i] += n
	}
}

// slotsUpTo is a number of slots that suffices, at any scale, for durations up to
// longest. A read that falls into an update may see a slot beyond it, and counts it
// the next time.
func slotsUpTo(longest uint64) int {
	// One for zero, and eight for each power of two at the highest scale.
	return min(2+bits.Len64(longest)<<otlp.MaxScale, len(Histogram{}.Slots))
}

// Merge adds to a point what was counted since last. The kernel's slots are those
// of the point's scale; differences are taken modulo 2^32.
func (h *Histogram) Merge(point *otlp.HistogramPoint, last *Histogram) {
	var delta [len(h.Slots)]uint32
	for i := range delta {
		delta[i] = h.Slots[i] - last.Slots[i]
	}
	point.Merge(delta[:], h.Sum-last.Sum, ^h.Min, h.Max)
}
