package otlp

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// above tells that ns > 2^(j/2^scale)·10^9, exactly: both sides to the power
// 2^scale are integers, once a negative j has moved to the left.
func above(ns uint64, j, scale int) bool {
	power := big.NewInt(1 << scale)
	left := new(big.Int).Exp(new(big.Int).SetUint64(ns), power, nil)
	right := new(big.Int).Exp(big.NewInt(1e9), power, nil)
	if j < 0 {
		left.Lsh(left, uint(-j))
	} else {
		right.Lsh(right, uint(j))
	}
	return left.Cmp(right) > 0
}

// checkSlot compares with the definition: slot k > 0 is bucket j = k-1-30·2^scale, which
// holds 2^(j/2^scale)·10^9 < ns <= 2^((j+1)/2^scale)·10^9.
func checkSlot(t *testing.T, scale int, ns uint64) {
	t.Helper()
	slot := HistogramSlot(scale, ns)
	if ns == 0 {
		if slot != 0 {
			t.Fatalf("scale %d: 0 ns is in slot %d", scale, slot)
		}
		return
	}
	if slot < 1 || slot >= HistogramSlots(scale) {
		t.Fatalf("scale %d: %d ns is in slot %d of %d", scale, ns, slot, HistogramSlots(scale))
	}
	if j := bucketOf(slot, scale); !above(ns, j, scale) || above(ns, j+1, scale) {
		t.Fatalf("scale %d: %d ns is not in bucket %d", scale, ns, j)
	}
}

// edges returns zero, the largest value, and every bound and power of two with
// its neighbours.
func edges(scale int) []uint64 {
	values := []uint64{0, math.MaxUint64}
	for _, bound := range HistogramBounds(scale) {
		values = append(values, bound-1, bound, bound+1)
	}
	for octave := range 64 {
		values = append(values, 1<<octave-1, 1<<octave, 1<<octave+1)
	}
	return values
}

func TestHistogramBounds(t *testing.T) {
	for scale := range MaxScale + 1 {
		bounds := HistogramBounds(scale)
		if len(bounds) != 64<<scale {
			t.Fatalf("scale %d: %d bounds", scale, len(bounds))
		}
		for i, bound := range bounds {
			j := i + 1 - 30<<scale
			if octave := bits.Len64(bound) - 1; octave != i>>scale {
				t.Errorf("scale %d: bound %d = %d is in octave %d", scale, i, bound, octave)
			}
			// The floor: not above the real bound, and one more is above it.
			if above(bound, j, scale) || !above(bound+1, j, scale) {
				t.Errorf("scale %d: bound %d = %d is not floor(2^(%d/%d)·10^9)", scale, i, bound, j, 1<<scale)
			}
		}
		if !slices.IsSorted(bounds) {
			t.Errorf("scale %d: not ascending", scale)
		}
	}
}

func TestHistogramSlot(t *testing.T) {
	for _, test := range []struct {
		scale int
		ns    uint64
		want  int
	}{
		{0, 0, 0},
		{0, 1, 1},
		{0, 2, 2},    // 2^-29 s = 1.86 ns < 2 ns
		{0, 1e9, 30}, // 1 s is the upper bound of bucket -1
		{0, 1e9 + 1, 31},
		{0, 2e9, 31},
		{1, 1e9, 60},
		{1, 1_414_213_562, 61}, // floor of the square root of two
		{1, 1_414_213_563, 62},
		{3, 1e9, 240},
		{0, 17179869184e9, 64}, // 2^34 s, the last bound
		{0, 17179869184e9 + 1, 65},
		{3, math.MaxUint64, 513},
	} {
		if got := HistogramSlot(test.scale, test.ns); got != test.want {
			t.Errorf("HistogramSlot(%d, %d) = %d, want %d", test.scale, test.ns, got, test.want)
		}
	}
	for scale := range MaxScale + 1 {
		for _, ns := range edges(scale) {
			checkSlot(t, scale, ns)
		}
	}
}

func FuzzHistogramSlot(f *testing.F) {
	for _, ns := range []uint64{0, 1, 2, 1e9, 1e9 + 1, 1_414_213_562, math.MaxUint64} {
		f.Add(ns)
	}
	f.Fuzz(func(t *testing.T, ns uint64) {
		for scale := range MaxScale + 1 {
			checkSlot(t, scale, ns)
		}
	})
}

// randomDurations mixes uniform, log-uniform, bounds and powers of two.
func randomDurations(random *rand.Rand, scale, n int) []uint64 {
	special := edges(scale)
	durations := make([]uint64, n)
	for i := range durations {
		switch i % 4 {
		case 0:
			durations[i] = random.Uint64N(600e9)
		case 1:
			durations[i] = random.Uint64() >> random.IntN(64)
		case 2:
			durations[i] = uint64(math.Exp(random.Float64() * math.Log(600e9)))
		default:
			durations[i] = special[random.IntN(len(special))]
		}
	}
	return durations
}

// TestHistogramMatchesSDK compares with OpenTelemetry's SDK, bucket by bucket. The
// SDK works with floating point: at bounds it may err. Where the two differ, the
// one value that makes the difference is found, exact arithmetic has to confirm
// ours, and the SDK's has to be the bucket on the other side of a bound from which
// a float64 cannot tell the value.
func TestHistogramMatchesSDK(t *testing.T) {
	total, chunk := 1_750_000, 4096 // more than a million different ones
	if testing.Short() {
		total = 100_000
	}
	for scale := range MaxScale + 1 {
		t.Run(fmt.Sprint("scale ", scale), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(scale), 2))
			durations := append(edges(scale), randomDurations(random, scale, total)...)
			// Both ways of sorting into buckets are monotonic, so equal counts mean
			// that each value is in the same bucket; halving finds the others.
			slices.Sort(durations)
			durations = slices.Compact(durations)
			differing := 0
			for part := range slices.Chunk(durations, chunk) {
				differing += compareWithSDK(t, scale, part)
			}
			t.Logf("%d different durations, the SDK is wrong about %d of them", len(durations), differing)
		})
	}
}

// compareWithSDK returns how many of the durations the SDK gets wrong.
func compareWithSDK(t *testing.T, scale int, durations []uint64) int {
	t.Helper()
	ours := map[int]uint64{}
	for _, ns := range durations {
		ours[HistogramSlot(scale, ns)]++
	}
	theirs := sdkSlots(t, scale, durations)
	if maps.Equal(ours, theirs) {
		return 0
	}
	if half := len(durations) / 2; half > 0 {
		return compareWithSDK(t, scale, durations[:half]) + compareWithSDK(t, scale, durations[half:])
	}
	ns, slot := durations[0], HistogramSlot(scale, durations[0])
	checkSlot(t, scale, ns)
	// The bound between the two: the upper one of the lower bucket.
	j := bucketOf(slot, scale)
	if _, ok := theirs[slot+1]; ok {
		j++
	} else if _, ok := theirs[slot-1]; !ok {
		t.Errorf("scale %d: %d ns is in slot %d, the SDK says %v", scale, ns, slot, theirs)
		return 1
	}
	bound := math.Exp2(float64(j) / float64(int(1)<<scale))
	if v := seconds(ns); math.Nextafter(math.Nextafter(v, 0), 0) > bound || math.Nextafter(math.Nextafter(v, math.Inf(1)), math.Inf(1)) < bound {
		t.Errorf("scale %d: %d ns is in slot %d, the SDK says %v, and a float64 can tell it from the bound", scale, ns, slot, theirs)
	}
	return 1
}

// sdkSlots returns what the SDK counts, under our numbers of slots.
func sdkSlots(t *testing.T, scale int, durations []uint64) map[int]uint64 {
	t.Helper()
	reader := sdkmetric.NewManualReader(sdkmetric.WithAggregationSelector(func(sdkmetric.InstrumentKind) sdkmetric.Aggregation {
		return sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: int32(HistogramSlots(scale)), MaxScale: int32(scale)}
	}))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	histogram, err := provider.Meter("test").Float64Histogram("test")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, ns := range durations {
		histogram.Record(ctx, seconds(ns))
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &collected); err != nil {
		t.Fatal(err)
	}
	data, ok := collected.ScopeMetrics[0].Metrics[0].Data.(metricdata.ExponentialHistogram[float64])
	if !ok || len(data.DataPoints) != 1 {
		t.Fatalf("the SDK returned %T with %d points", collected.ScopeMetrics[0].Metrics[0].Data, len(data.DataPoints))
	}
	point := data.DataPoints[0]
	if int(point.Scale) != scale {
		t.Fatalf("the SDK went to scale %d", point.Scale)
	}
	slots := map[int]uint64{}
	if point.ZeroCount > 0 {
		slots[0] = point.ZeroCount
	}
	for i, n := range point.PositiveBucket.Counts {
		if n > 0 {
			slots[int(point.PositiveBucket.Offset)+i+1+30<<scale] = n
		}
	}
	return slots
}

// TestExplicitBuckets checks that folding slots is the same as sorting the
// durations into the explicit buckets at once.
func TestExplicitBuckets(t *testing.T) {
	bounds := explicitBounds()
	for scale := range MaxScale + 1 {
		random := rand.New(rand.NewPCG(uint64(scale), 3))
		for _, ns := range append(edges(scale), randomDurations(random, scale, 20_000)...) {
			got := explicitBucket(HistogramSlot(scale, ns), scale)
			want := 0
			for want < len(bounds) && ns > 0 && above(ns, lowestBound+want, 0) {
				want++
			}
			if got != want {
				t.Fatalf("scale %d: %d ns is in explicit bucket %d, want %d", scale, ns, got, want)
			}
		}
	}
	if bounds[0] != 1.0/(1<<20) || bounds[len(bounds)-1] != 64 {
		t.Errorf("bounds %v", bounds)
	}
}

// TestDistribution merges in random parts and compares with everything at once.
func TestDistribution(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 4))
	for range 200 {
		scale := random.IntN(MaxScale + 1)
		got := distribution{min: math.MaxUint64}
		want := make([]uint64, HistogramSlots(scale))
		var sum, count, highest uint64
		lowest := uint64(math.MaxUint64)
		for range random.IntN(6) {
			slots := make([]uint32, HistogramSlots(scale))
			added := uint64(0)
			for range random.IntN(4) {
				ns := random.Uint64() >> random.IntN(65)
				slots[HistogramSlot(scale, ns)]++
				want[HistogramSlot(scale, ns)]++
				added += ns
				lowest, highest, count = min(lowest, ns), max(highest, ns), count+1
			}
			sum += added
			got.merge(slots, added, lowest, highest)
		}
		all := make([]uint64, HistogramSlots(scale))
		all[0] = got.zero
		copy(all[got.first:], got.counts)
		if len(got.counts) == 0 {
			all = make([]uint64, HistogramSlots(scale))
			all[0] = got.zero
		}
		if !slices.Equal(all, want) || got.sum != sum || got.count != count {
			t.Fatalf("got %+v, want %d of sum %d in %d", got, count, sum, want)
		}
		if n := len(got.counts); n > 0 && (got.counts[0] == 0 || got.counts[n-1] == 0) {
			t.Fatalf("an end is empty: %+v", got)
		}
		minimum, maximum, hasMin, hasMax := got.extremes(scale)
		if hasMin != (count > 0) || hasMax != (count > 0) || count > 0 && (minimum != lowest || maximum != highest) {
			t.Fatalf("extremes %d %v, %d %v; want %d and %d", minimum, hasMin, maximum, hasMax, lowest, highest)
		}
	}
}
