package histogramtest

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/testutil"
)

// durationsPerRun is DURATIONS of histogramtest.bpf.c.
const durationsPerRun = 65536

// TestKernelHistogram compares histogram_slot and histogram_add with their
// description in Go, over more than a million durations at each scale.
func TestKernelHistogram(t *testing.T) {
	testutil.RequireBPF(t)
	// Fails without CAP_SYS_RESOURCE, which only matters before Linux 5.11.
	_ = rlimit.RemoveMemlock()
	for scale := range otlp.MaxScale + 1 {
		random := rand.New(rand.NewPCG(uint64(scale), 1))
		objects := load(t, scale)
		want := expectation{slots: make([]uint32, otlp.HistogramSlots(scale)), min: ^uint64(0)}
		edges := edges(scale)
		for len(edges) > 0 {
			n := min(len(edges), durationsPerRun)
			want.check(t, &objects, scale, pad(edges[:n], random))
			edges = edges[n:]
		}
		for range 16 {
			want.check(t, &objects, scale, pad(nil, random))
		}
		want.checkSum(t, &objects)
	}
}

func load(t *testing.T, scale int) bpfObjects {
	t.Helper()
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	bounds := make([]uint64, spec.Variables["histogram_bounds"].Size()/8)
	copy(bounds, otlp.HistogramBounds(scale))
	if err := spec.Variables["histogram_bounds"].Set(bounds); err != nil {
		t.Fatal(err)
	}
	if err := spec.Variables["setting_histogram_scale"].Set(uint32(scale)); err != nil {
		t.Fatal(err)
	}
	var objects bpfObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		t.Fatalf("load at scale %d: %+v", scale, err)
	}
	t.Cleanup(func() { objects.Close() })
	return objects
}

// expectation is what the kernel's struct histogram should hold.
type expectation struct {
	slots         []uint32
	sum, min, max uint64
}

// check runs the program on the durations and compares slot by slot.
func (e *expectation) check(t *testing.T, objects *bpfObjects, scale int, durations []uint64) {
	t.Helper()
	if err := objects.Durations.Set(durations); err != nil {
		t.Fatal(err)
	}
	if err := objects.Next.Set(uint32(0)); err != nil {
		t.Fatal(err)
	}
	run := ebpf.RunOptions{Data: make([]byte, 14), Repeat: durationsPerRun}
	if _, err := objects.HistogramTest.Run(&run); err != nil {
		t.Fatalf("test run: %v", err)
	}
	slots := make([]uint32, durationsPerRun)
	if err := objects.Slots.Get(slots); err != nil {
		t.Fatal(err)
	}
	for i, ns := range durations {
		want := otlp.HistogramSlot(scale, ns)
		if int(slots[i]) != want {
			t.Fatalf("scale %d: %d ns is in slot %d, the kernel says %d", scale, ns, want, slots[i])
		}
		e.slots[want]++
		e.sum += ns
		e.min, e.max = min(e.min, ns), max(e.max, ns)
	}
}

// checkSum compares with what histogram_add accumulated.
func (e *expectation) checkSum(t *testing.T, objects *bpfObjects) {
	t.Helper()
	var seen bpfHistogram
	if err := objects.Seen.Get(&seen); err != nil {
		t.Fatal(err)
	}
	if seen.Sum != e.sum || ^seen.Min != e.min || seen.Max != e.max {
		t.Errorf("sum %d, min %d, max %d; the kernel has %d, %d, %d", e.sum, e.min, e.max, seen.Sum, ^seen.Min, seen.Max)
	}
	if got := seen.Slots[:len(e.slots)]; !slices.Equal(got, e.slots) {
		t.Errorf("slots:\n%d, the kernel has\n%d", e.slots, got)
	}
}

// edges returns zero, the largest value, and every bound and power of two with
// its neighbours.
func edges(scale int) []uint64 {
	values := []uint64{0, ^uint64(0)}
	for _, bound := range otlp.HistogramBounds(scale) {
		values = append(values, bound-1, bound, bound+1)
	}
	for octave := range 64 {
		values = append(values, 1<<octave-1, 1<<octave, 1<<octave+1)
	}
	return values
}

// pad fills up a run with random durations of every order of magnitude, half of
// them in what is usual: up to some minutes.
func pad(durations []uint64, random *rand.Rand) []uint64 {
	durations = slices.Grow(slices.Clone(durations), durationsPerRun)
	for len(durations) < durationsPerRun {
		length := 64
		if len(durations)%2 == 0 {
			length = bits.Len64(600e9)
		}
		durations = append(durations, random.Uint64()>>(64-1-random.IntN(length)))
	}
	return durations
}
