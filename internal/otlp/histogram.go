package otlp

import (
	"math"
	"math/bits"
)

const (
	// MaxScale is the largest histogram scale: buckets 9 % wide.
	MaxScale = 3
	// octaves is how many powers of two a duration in ns may have: bpf/include/histogram.h.
	octaves = 64
	// zeroOctave is the octave of the bucket, in seconds, that holds 1 ns:
	// 2^-30 s < 1 ns <= 2^-29 s.
	zeroOctave = -30

	// Explicit histograms have bounds 2^lowestBound s to 2^highestBound s.
	lowestBound  = -20
	highestBound = 6
)

// HistogramSlots returns the number of slots of a kernel histogram at a scale,
// 0 to MaxScale: zero, one below each of the bounds, one above the last.
func HistogramSlots(scale int) int {
	return 2 + octaves<<scale
}

// HistogramBounds returns the bounds that bpf/include/histogram.h compares with,
// in whole nanoseconds, rounded down, ascending: 1<<scale for each octave from
// 2^0 ns to 2^63 ns. An octave's bounds are the real numbers 2^(j/2^scale)·10^9
// ns, j integer, that lie in it; those are the bucket bounds in seconds that the
// OpenTelemetry data model gives for an exponential histogram,
// https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram.
//
// An integer exceeds a real bound exactly if it exceeds the bound's floor, so
// nothing is lost by the rounding.
func HistogramBounds(scale int) []uint64 {
	top := topBounds()
	step := 1 << (MaxScale - scale)
	bounds := make([]uint64, 0, octaves<<scale)
	for octave := range octaves {
		for k := step - 1; k < len(top); k += step {
			bounds = append(bounds, top[k]>>(octaves-1-octave))
		}
	}
	return bounds
}

// topBounds returns floor(2^((265+k)/8)·10^9): the bounds at scale 3 in the
// octave from 2^63 ns. At scale s < 3 every 2^(3-s)th of them, counted from the
// end, is a bound. A lower octave's bounds are these divided by a power of two,
// and floor(floor(x)/2^n) = floor(x/2^n), so shifting the floors is exact. A test
// computes each bound of each octave with math/big.
func topBounds() [1 << MaxScale]uint64 {
	return [...]uint64{
		9367390095664785123,
		10215211334214395865,
		11139766950770582417,
		12148001999904198769,
		13247490117328543392,
		14446490411353358019,
		15754009503455335899,
		17179869184000000000,
	}
}

// HistogramSlot returns the slot of a duration at a scale, 0 to MaxScale. It is
// the twin of histogram_slot in bpf/include/histogram.h: slot 0 is zero, slot k > 0
// is bucket k-1-30·2^scale of an exponential histogram in seconds.
func HistogramSlot(scale int, ns uint64) int {
	if ns == 0 {
		return 0
	}
	octave := bits.Len64(ns) - 1
	top := topBounds()
	step := 1 << (MaxScale - scale)
	below := 0
	for k := step - 1; k < len(top) && ns > top[k]>>(octaves-1-octave); k += step {
		below++
	}
	return 1 + octave<<scale + below
}

// bucketOf returns the exponential bucket that slot, which is not 0, stands for.
func bucketOf(slot, scale int) int {
	return slot - 1 + zeroOctave<<scale
}

// explicitBounds returns the bounds of explicit histograms, in seconds.
func explicitBounds() []float64 {
	bounds := make([]float64, 0, highestBound-lowestBound+1)
	for exponent := lowestBound; exponent <= highestBound; exponent++ {
		bounds = append(bounds, math.Ldexp(1, exponent))
	}
	return bounds
}

// explicitBucket returns the index of the explicit bucket that slot falls into.
// Slot 0 is zero, which belongs to the first one. The bucket in octave o ends at
// 2^(o+1) s at the latest, bound included, as explicit bounds are.
func explicitBucket(slot, scale int) int {
	if slot == 0 {
		return 0
	}
	octave := bucketOf(slot, scale) >> scale
	return min(max(octave+1-lowestBound, 0), highestBound-lowestBound+1)
}

// distribution is what one histogram series has seen.
type distribution struct {
	count, sum uint64
	min, max   uint64 // ns, of everything that the kernel saw under the key; min > max: none
	zero       uint64 // values of 0 ns
	// counts[i] belongs to slot first+i. Both ends are not zero, so that this is
	// a data point's dense list of buckets, and memory follows the range in use
	// rather than the number of slots.
	first  int
	counts []uint64
}

// merge adds slots' counts and reports whether there were any.
func (d *distribution) merge(slots []uint32, sum, minimum, maximum uint64) bool {
	low, high := 1, len(slots)
	for low < high && slots[low] == 0 {
		low++
	}
	for high > low && slots[high-1] == 0 {
		high--
	}
	added := uint64(0)
	if len(slots) > 0 {
		added = uint64(slots[0])
		d.zero += added
	}
	if low < high {
		d.cover(low, high)
		for i, n := range slots[low:high] {
			added += uint64(n)
			d.counts[low-d.first+i] += uint64(n)
		}
	}
	d.count += added
	d.sum += sum
	if minimum != math.MaxUint64 {
		d.min = min(d.min, minimum)
		d.max = max(d.max, maximum)
	}
	return added != 0
}

// cover makes counts reach from slot low to slot high-1.
func (d *distribution) cover(low, high int) {
	if len(d.counts) == 0 {
		d.first, d.counts = low, make([]uint64, high-low)
		return
	}
	end := d.first + len(d.counts)
	if low >= d.first && high <= end {
		return
	}
	first := min(low, d.first)
	counts := make([]uint64, max(high, end)-first)
	copy(counts[d.first-first:], d.counts)
	d.first, d.counts = first, counts
}

// lowest and highest return the outermost slots that are not empty, which
// exist once count is not 0.
func (d *distribution) lowest() int {
	if d.zero > 0 {
		return 0
	}
	return d.first
}

func (d *distribution) highest() int {
	if len(d.counts) == 0 {
		return 0
	}
	return d.first + len(d.counts) - 1
}

// extremes returns the smallest and the largest value and whether each is known.
// The kernel's are those of all that it ever saw under the key. One that does not
// lie in the outermost bucket is not of this series' values: it is from before
// the series expired and came back, or was read in the middle of an update.
func (d *distribution) extremes(scale int) (minimum, maximum uint64, hasMin, hasMax bool) {
	if d.count == 0 || d.min > d.max {
		return 0, 0, false, false
	}
	return d.min, d.max, HistogramSlot(scale, d.min) == d.lowest(), HistogramSlot(scale, d.max) == d.highest()
}

// seconds converts nanoseconds with the one rounding that a float64 needs:
// the division's, plus the conversion's above 2^53 ns, which is 104 days.
func seconds(ns uint64) float64 {
	return float64(ns) / 1e9
}
