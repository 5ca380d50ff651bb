//go:build linux

package table

import (
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/testutil"
)

// newMap makes a per-CPU hash map with keys of eight bytes.
func newMap(tb testing.TB, valueSize, entries uint32) *ebpf.Map {
	tb.Helper()
	testutil.RequireBPF(tb)
	_ = rlimit.RemoveMemlock() // before v5.11 maps are locked memory
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 8, ValueSize: valueSize, MaxEntries: entries})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, m.Close()) })
	return m
}

// put sets a key's value: base on the first CPU, base+1 on the second, ….
func put(tb testing.TB, m *ebpf.Map, key, base uint64) {
	tb.Helper()
	values := make([]uint64, ebpf.MustPossibleCPU())
	for cpu := range values {
		values[cpu] = base + uint64(cpu)
	}
	require.NoError(tb, m.Put(key, values))
}

// sumOf is the sum over all CPUs of what put set.
func sumOf(base uint64) uint64 {
	n := uint64(ebpf.MustPossibleCPU())
	return n*base + n*(n-1)/2
}

type counters = Table[uint64, uint64, int]

func newCounters(tb testing.TB, m *ebpf.Map) *counters {
	tb.Helper()
	t, err := New[uint64, uint64, int](m, func(sum, cpu *uint64) { *sum += *cpu })
	require.NoError(tb, err)
	return t
}

// read returns each key's growth since the last read, and fails if a key is
// visited twice.
func read(tb testing.TB, t *counters) map[uint64]uint64 {
	tb.Helper()
	grown := map[uint64]uint64{}
	require.NoError(tb, t.Read(func(key uint64, sum *uint64, entry *Entry[uint64, int]) {
		if _, twice := grown[key]; twice {
			tb.Errorf("key %d is visited twice", key)
		}
		grown[key] = *sum - entry.Last
	}))
	return grown
}

// collect is read for Collect, with the keys in gone being gone.
func collect(tb testing.TB, t *counters, gone ...uint64) map[uint64]uint64 {
	tb.Helper()
	grown := map[uint64]uint64{}
	isGone := func(key uint64) bool {
		for _, g := range gone {
			if g == key {
				return true
			}
		}
		return false
	}
	require.NoError(tb, t.Collect(isGone, func(key uint64, sum *uint64, entry *Entry[uint64, int]) {
		if _, twice := grown[key]; twice {
			tb.Errorf("key %d is visited twice", key)
		}
		grown[key] = *sum - entry.Last
	}))
	return grown
}

func TestReadManyBatches(t *testing.T) {
	const entries = 3*batchKeys + 100
	m := newMap(t, 8, entries)
	table := newCounters(t, m)
	require.Equal(t, entries, table.Cap())
	require.Empty(t, read(t, table))
	want := map[uint64]uint64{}
	for key := range uint64(entries) {
		put(t, m, key, key)
		want[key] = sumOf(key)
	}
	require.Equal(t, want, read(t, table))
	require.Equal(t, entries, table.Len())
	put(t, m, 7, 100)
	maps.DeleteFunc(want, func(uint64, uint64) bool { return true })
	for key := range uint64(entries) {
		want[key] = 0
	}
	want[7] = sumOf(100) - sumOf(7)
	require.Equal(t, want, read(t, table))
	require.NoError(t, m.Delete(uint64(7)))
	require.NotContains(t, read(t, table), uint64(7))
	require.Equal(t, entries-1, table.Len())
}

// A bucket that holds more keys than the batch makes the kernel refuse with ENOSPC.
func TestReadGrowsItsBatch(t *testing.T) {
	const entries = 512
	m := newMap(t, 8, entries)
	table := newCounters(t, m)
	table.allocate(1)
	want := map[uint64]uint64{}
	for key := range uint64(entries) {
		put(t, m, key, key)
		want[key] = sumOf(key)
	}
	require.Equal(t, want, read(t, table))
	require.Greater(t, len(table.keys), 1, "with as many buckets as keys, some hold two")
}

// The buffer of a batch is bounded, whatever the values' size and the number of CPUs.
func TestBatchIsBounded(t *testing.T) {
	const size = 2104
	m := newMap(t, size, 64)
	table, err := New[uint64, [size]byte, int](m, func(*[size]byte, *[size]byte) {})
	require.NoError(t, err)
	require.LessOrEqual(t, len(table.values), max(batchBytes, leastKeys*size*ebpf.MustPossibleCPU()))
}

func TestReadUnderChurn(t *testing.T) {
	const stable = 2000
	m := newMap(t, 8, 2*stable)
	table := newCounters(t, m)
	want := map[uint64]uint64{}
	for key := range uint64(stable) {
		put(t, m, key, key)
		want[key] = sumOf(key)
	}
	var churn sync.WaitGroup
	stop := make(chan struct{})
	churn.Go(func() {
		values := make([]uint64, ebpf.MustPossibleCPU())
		for key := uint64(stable); ; key++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = m.Put(stable+key%1000, values)
			_ = m.Delete(stable + (key+500)%1000)
			if key%20 == 0 { // an emulated machine has one thread for two CPUs
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	for range 10 {
		grown := read(t, table)
		maps.DeleteFunc(grown, func(key, _ uint64) bool { return key >= stable })
		require.Equal(t, want, grown)
		for key := range want {
			want[key] = 0
		}
	}
	close(stop)
	churn.Wait()
}

func TestCollectDeletesTheGone(t *testing.T) {
	m := newMap(t, 8, 16)
	table := newCounters(t, m)
	put(t, m, 1, 10)
	put(t, m, 2, 20)
	require.Equal(t, map[uint64]uint64{1: sumOf(10), 2: sumOf(20)}, collect(t, table, 1),
		"what has changed is delivered first")
	require.Equal(t, 2, table.Len())
	require.Empty(t, collect(t, table, 1))
	var values []uint64
	require.ErrorIs(t, m.Lookup(uint64(1), &values), ebpf.ErrKeyNotExist)
	require.NoError(t, m.Lookup(uint64(2), &values))
	require.Empty(t, collect(t, table, 1))
	require.Equal(t, 1, table.Len())

	// The key comes back, as a reused pid may: it counts from zero.
	put(t, m, 1, 3)
	require.Equal(t, map[uint64]uint64{1: sumOf(3)}, collect(t, table))

	// It is deleted and comes back between two reads.
	require.Empty(t, collect(t, table, 1))
	put(t, m, 1, 2)
	require.Equal(t, map[uint64]uint64{1: sumOf(2)}, collect(t, table, 1))
}

// The value of a map may be cut, and its size need not be a multiple of eight.
func TestShortValue(t *testing.T) {
	const slots = 65 // one CPU's value takes a padded 288 of 284 bytes
	m := newMap(t, 24+4*slots, 4)
	table, err := New[uint64, Histogram, int](m, func(sum, cpu *Histogram) { sum.Add(cpu) })
	require.NoError(t, err)
	cpus := ebpf.MustPossibleCPU()
	perCPU := make([][]byte, cpus)
	for cpu := range perCPU {
		value := make([]byte, 24+4*slots)
		binary.NativeEndian.PutUint64(value, 1000)
		binary.NativeEndian.PutUint64(value[8:], ^uint64(10+cpu))
		binary.NativeEndian.PutUint64(value[16:], uint64(500+cpu))
		binary.NativeEndian.PutUint32(value[24+4*(slots-1):], 3)
		perCPU[cpu] = value
	}
	require.NoError(t, m.Put(uint64(1), perCPU))
	var want Histogram
	want.Sum, want.Min, want.Max = uint64(1000*cpus), ^uint64(10), uint64(500+cpus-1)
	want.Slots[slots-1] = uint32(3 * cpus)
	for range 2 { // the second read meets used buffers
		visits := 0
		require.NoError(t, table.Read(func(_ uint64, sum *Histogram, _ *Entry[Histogram, int]) {
			visits++
			require.Equal(t, want, *sum)
		}))
		require.Equal(t, 1, visits)
	}
}

func TestNewRefuses(t *testing.T) {
	m := newMap(t, 16, 4)
	_, err := New[uint64, uint64, int](m, nil)
	require.ErrorContains(t, err, "larger than")
	_, err = New[uint32, [2]uint64, int](m, nil)
	require.ErrorContains(t, err, "keys of 4 bytes")
}

const testMetadata = `
type: test
description: A probe with one histogram.
requires: {kernel: "5.10", hooks: [{name: none, why: nothing to hook}]}
metrics:
  test.duration: {enabled: true, description: Durations., unit: s, histogram: {value_type: double}}
`

// The kernel's slots are 32 bits wide and wrap; the point's do not.
func TestHistogramWraps(t *testing.T) {
	meta, err := metadata.Parse([]byte(testMetadata))
	require.NoError(t, err)
	metrics := otlp.NewMetrics(meta, otlp.Options{})
	point := metrics.Histogram("test.duration").At(nil)
	var last, sum Histogram
	sum.Min, sum.Max = ^uint64(1000), 2000
	total, calls := uint64(0), uint64(0)
	for round := range 10 {
		added := uint32(1<<31 + round)
		sum.Slots[11] += added
		sum.Sum += uint64(added) * 1000
		calls += uint64(added)
		total += uint64(added) * 1000
		sum.Merge(point, &last)
		last = sum
	}
	batch := otlp.NewBatch(pcommon.Timestamp(1).AsTime())
	metrics.AppendTo(batch)
	dp := batch.Metrics().ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).ExponentialHistogram().DataPoints().At(0)
	require.Equal(t, calls, dp.Count())
	require.Equal(t, float64(total)/1e9, dp.Sum())
	require.Equal(t, []uint64{calls}, dp.Positive().BucketCounts().AsRaw())
}

// A read may fall between the four writes of one histogram_add(). What it sees of
// the sum or of a slot then, it sees again next time.
func TestTornReads(t *testing.T) {
	steps := []func(*Histogram){
		func(h *Histogram) { h.Slots[5]++ },
		func(h *Histogram) { h.Sum += 20 },
		func(h *Histogram) { h.Min = max(h.Min, ^uint64(20)) },
		func(h *Histogram) { h.Max = max(h.Max, 20) },
	}
	for torn := range len(steps) + 1 {
		t.Run(fmt.Sprint(torn), func(t *testing.T) {
			var cpu, last Histogram
			count, sum := uint32(0), uint64(0)
			read := func() {
				var now Histogram
				now.Add(&cpu)
				count += now.Slots[5] - last.Slots[5]
				sum += now.Sum - last.Sum
				last = now
			}
			for range 3 {
				for i, step := range steps {
					if i == torn {
						read()
					}
					step(&cpu)
				}
			}
			read()
			require.EqualValues(t, 3, count)
			require.EqualValues(t, 60, sum)
		})
	}
}

// Once it knows the keys, a collection allocates a little for each batch, nothing
// for each key.
func TestCollectDoesNotAllocatePerKey(t *testing.T) {
	const entries = 2*batchKeys + 500
	m := newMap(t, 8, entries)
	table := newCounters(t, m)
	for key := range uint64(entries) {
		put(t, m, key, 1)
	}
	seen := 0
	gone := func(uint64) bool { return false }
	visit := func(uint64, *uint64, *Entry[uint64, int]) { seen++ }
	require.NoError(t, table.Collect(gone, visit))
	require.Equal(t, entries, seen)
	allocations := testing.AllocsPerRun(5, func() {
		if err := table.Collect(gone, visit); err != nil {
			t.Error(err)
		}
	})
	require.Less(t, allocations, 40.0)
}

// BenchmarkCollect reads maps of histograms as the scheduler's, a tenth of whose
// keys change between two reads.
func BenchmarkCollect(b *testing.B) {
	for _, entries := range []int{100, 2000, 20000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			const slots = 66
			m := newMap(b, 24+4*slots, uint32(entries))
			table, err := New[uint64, Histogram, int](m, func(sum, cpu *Histogram) { sum.Add(cpu) })
			require.NoError(b, err)
			perCPU := make([][]byte, ebpf.MustPossibleCPU())
			for cpu := range perCPU {
				perCPU[cpu] = make([]byte, 24+4*slots)
				binary.NativeEndian.PutUint64(perCPU[cpu][16:], 1<<30)
			}
			for key := range uint64(entries) {
				require.NoError(b, m.Put(key, perCPU))
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := table.Collect(func(uint64) bool { return false }, func(uint64, *Histogram, *Entry[Histogram, int]) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
