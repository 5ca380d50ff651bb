package otlp

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"otelcol-ebpf/internal/metadata"
)

func testMetadata(tb testing.TB) metadata.Metadata {
	tb.Helper()
	text, err := os.ReadFile("testdata/metadata.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	meta, err := metadata.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return meta
}

// at returns the time n seconds after the probe of a test attached.
func at(n int) time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(n) * time.Second)
}

func stamp(n int) pcommon.Timestamp { return pcommon.NewTimestampFromTime(at(n)) }

// collect ends a collection of m at at(n), checks it, and returns it.
func collect(t *testing.T, m *Metrics, n int) pmetric.Metrics {
	t.Helper()
	batch := NewBatch(at(n))
	m.AppendTo(batch)
	metrics := batch.Metrics()
	if err := CheckMetrics(m.meta, metrics); err != nil {
		t.Fatal(err)
	}
	return metrics
}

// flat writes the number points of a batch as "resource/metric{attributes}
// value start": "map[]/test.calls map[color:red] 3 from 0", start in seconds.
func flat(metrics pmetric.Metrics) []string {
	var lines []string
	for _, rm := range metrics.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				var points pmetric.NumberDataPointSlice
				switch metric.Type() {
				case pmetric.MetricTypeSum:
					points = metric.Sum().DataPoints()
				case pmetric.MetricTypeGauge:
					points = metric.Gauge().DataPoints()
				default:
					continue
				}
				for _, point := range points.All() {
					value := fmt.Sprint(point.IntValue())
					if point.ValueType() == pmetric.NumberDataPointValueTypeDouble {
						value = fmt.Sprint(point.DoubleValue())
					}
					line := fmt.Sprintf("%v %s %v %s", rm.Resource().Attributes().AsRaw(), metric.Name(), point.Attributes().AsRaw(), value)
					if metric.Type() == pmetric.MetricTypeSum {
						line += fmt.Sprintf(" from %v", point.StartTimestamp().AsTime().Sub(at(0)))
					}
					lines = append(lines, strings.ReplaceAll(line, "map[]", "-"))
				}
			}
		}
	}
	return lines
}

func expect(t *testing.T, metrics pmetric.Metrics, want ...string) {
	t.Helper()
	if got := flat(metrics); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestMetricsOutput(t *testing.T) {
	host, pod := NewResource(), NewResource(String("container.id", "c1"))
	m := NewMetrics(testMetadata(t), Options{Start: at(0), Host: host, ScopeName: "s", ScopeVersion: "v", SchemaURL: "u"})
	calls, seconds, open, level := m.Counter("test.calls"), m.Counter("test.time"), m.Gauge("test.open"), m.Gauge("test.level")
	calls.At(pod, String("color", "red"), Int("number", 7)).Add(2)
	calls.At(pod, Int("number", 7), String("color", "red")).Add(1) // in another order
	calls.At(nil, Bool("loud", true)).Add(5)
	seconds.At(pod).Add(1_500_000_000)
	open.At(pod, Int("number", 1)).Set(-3)
	level.At(pod).Set(-250_000_000)
	calls.At(pod) // no call yet

	metrics := collect(t, m, 10)
	expect(t, metrics,
		"map[container.id:c1] test.calls map[color:red number:7] 3 from 0s",
		"map[container.id:c1] test.calls - 0 from 0s",
		"map[container.id:c1] test.time - 1.5 from 0s",
		"map[container.id:c1] test.open map[number:1] -3 from 0s",
		"map[container.id:c1] test.level - -0.25",
		"- test.calls map[loud:true] 5 from 0s",
	)
	rm := metrics.ResourceMetrics().At(0)
	sm := rm.ScopeMetrics().At(0)
	if rm.SchemaUrl() != "u" || sm.SchemaUrl() != "u" || sm.Scope().Name() != "s" || sm.Scope().Version() != "v" {
		t.Errorf("schema %q %q, scope %q %q", rm.SchemaUrl(), sm.SchemaUrl(), sm.Scope().Name(), sm.Scope().Version())
	}
	metric := sm.Metrics().At(0)
	if metric.Unit() != "{call}" || metric.Description() != "Calls." || !metric.Sum().IsMonotonic() {
		t.Errorf("unit %q, description %q, monotonic %v", metric.Unit(), metric.Description(), metric.Sum().IsMonotonic())
	}
	if got := metric.Sum().DataPoints().At(0).Timestamp(); got != stamp(10) {
		t.Errorf("timestamp %v", got)
	}

	// Gauges are there only if set; what is new began after the last collection.
	open.At(pod, Int("number", 2)).Set(1)
	calls.At(host, Bool("loud", true)).Add(1)
	calls.At(host).Add(4)
	expect(t, collect(t, m, 20),
		"map[container.id:c1] test.calls map[color:red number:7] 3 from 0s",
		"map[container.id:c1] test.calls - 0 from 0s",
		"map[container.id:c1] test.time - 1.5 from 0s",
		"map[container.id:c1] test.open map[number:2] 1 from 10s",
		"- test.calls map[loud:true] 6 from 0s",
		"- test.calls - 4 from 10s",
	)
	if n := m.SeriesCount(); n != 8 {
		t.Errorf("%d series", n)
	}
}

// TestBatchGroups checks that probes share a resource and have a scope each.
func TestBatchGroups(t *testing.T) {
	meta, pod := testMetadata(t), NewResource(String("container.id", "c1"))
	a := NewMetrics(meta, Options{Start: at(0), ScopeName: "a"})
	b := NewMetrics(meta, Options{Start: at(0), ScopeName: "b"})
	idle := NewMetrics(meta, Options{Start: at(0), ScopeName: "idle"})
	a.Counter("test.calls").At(pod).Add(1)
	b.Counter("test.calls").At(pod).Add(1)
	b.Counter("test.calls").At(NewResource()).Add(1)
	batch := NewBatch(at(1))
	for _, m := range []*Metrics{a, b, idle} {
		m.AppendTo(batch)
	}
	resources := batch.Metrics().ResourceMetrics()
	if resources.Len() != 2 || resources.At(0).ScopeMetrics().Len() != 2 || resources.At(1).ScopeMetrics().Len() != 1 {
		t.Fatalf("%d resources", resources.Len())
	}
	if name := resources.At(0).ScopeMetrics().At(1).Scope().Name(); name != "b" {
		t.Errorf("second scope is %q", name)
	}
}

func TestMisuse(t *testing.T) {
	for name, misuse := range map[string]func(*Metrics){
		"undeclared metric":      func(m *Metrics) { m.Counter("test.none") },
		"gauge as counter":       func(m *Metrics) { m.Counter("test.level") },
		"up-down as counter":     func(m *Metrics) { m.Counter("test.open") },
		"counter as gauge":       func(m *Metrics) { m.Gauge("test.calls") },
		"counter as histogram":   func(m *Metrics) { m.Histogram("test.calls") },
		"used, then as another":  func(m *Metrics) { m.Counter("test.calls"); m.Gauge("test.calls") },
		"undeclared attribute":   func(m *Metrics) { m.Counter("test.time").At(nil, Int("number", 1)) },
		"attribute's wrong type": func(m *Metrics) { m.Counter("test.calls").At(nil, String("number", "1")) },
		"attribute twice":        func(m *Metrics) { m.Counter("test.calls").At(nil, Int("number", 1), Int("number", 2)) },
		"undeclared event":       func(m *Metrics) { NewLogs(m.meta, Options{}, nil).Event("test.none") },
		"scale":                  func(m *Metrics) { NewMetrics(m.meta, Options{Scale: 4}) },
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMetrics(testMetadata(t), Options{})
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			misuse(m)
		})
	}
}

func TestEnabled(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{Start: at(0), Enabled: map[string]bool{"test.off": true, "test.calls": false, "test.duration": false, "test.open": false}})
	calls, off := m.Counter("test.calls"), m.Counter("test.off")
	if calls.Enabled() || !off.Enabled() || m.Histogram("test.duration").Enabled() || m.Gauge("test.open").Enabled() {
		t.Error("overrides are not followed")
	}
	point := calls.At(nil, String("color", "red"))
	point.Add(1)
	m.Histogram("test.duration").At(nil).Merge([]uint32{0, 1}, 1, 1, 1)
	m.Gauge("test.open").At(nil).Set(4)
	off.At(nil).Add(2)
	expect(t, collect(t, m, 1), "- test.off - 2 from 0s")
	if !point.Live() || m.SeriesCount() != 1 {
		t.Error("a disabled metric has series")
	}
	if NewMetrics(testMetadata(t), Options{}).Counter("test.off").Enabled() {
		t.Error("enabled without an override")
	}
}

// TestOverflow checks that totals are exact past MaxSeries, and that room which
// an expiry makes is used.
func TestOverflow(t *testing.T) {
	host, pod := NewResource(), NewResource(String("container.id", "c1"))
	m := NewMetrics(testMetadata(t), Options{Start: at(0), Host: host, MaxSeries: 10, SeriesExpiry: 60 * time.Second})
	calls := m.Counter("test.calls")
	points := map[int64]*Point{}
	total := int64(0)
	for round := 1; round <= 3; round++ {
		for key := range int64(100) {
			if p := points[key]; p == nil || !p.Live() {
				points[key] = calls.At(pod, Int("number", key))
			}
			points[key].Add(uint64(key) + uint64(round))
			total += key + int64(round)
		}
		metrics := collect(t, m, round)
		sum, series, overflow := int64(0), 0, int64(0)
		for _, rm := range metrics.ResourceMetrics().All() {
			for _, p := range rm.ScopeMetrics().At(0).Metrics().At(0).Sum().DataPoints().All() {
				sum += p.IntValue()
				series++
				if v, ok := p.Attributes().Get(overflowKey); ok {
					overflow = p.IntValue()
					if !v.Bool() || p.Attributes().Len() != 1 || rm.Resource().Attributes().Len() != 0 {
						t.Errorf("overflow series %v of %v", p.Attributes().AsRaw(), rm.Resource().Attributes().AsRaw())
					}
				}
			}
		}
		if sum != total || series != 11 || overflow == 0 {
			t.Fatalf("round %d: %d in %d series (%d in the overflow), want %d in 11", round, sum, series, overflow, total)
		}
	}
	if m.Overflows() != 90 || m.SeriesCount() != 11 {
		t.Errorf("%d overflows, %d series", m.Overflows(), m.SeriesCount())
	}
	// Only overflowing keys go on: the ten expire, ten others take their place.
	for _, second := range []int{30, 64} {
		for key := int64(10); key < 100; key++ {
			points[key].Add(1)
		}
		collect(t, m, second)
	}
	if points[0].Live() || points[50].Live() || m.SeriesCount() != 1 {
		t.Fatalf("live %v and %v, %d series", points[0].Live(), points[50].Live(), m.SeriesCount())
	}
	points[50] = calls.At(pod, Int("number", 50))
	points[50].Add(1)
	lines := flat(collect(t, m, 70))
	if want := "map[container.id:c1] test.calls map[number:50] 1 from 1m4s"; lines[len(lines)-1] != want {
		t.Errorf("got %q, want %q last", lines, want)
	}
}

// TestKernelOverflow: what the kernel counted under no key joins the keys beyond
// MaxSeries.
func TestKernelOverflow(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{Start: at(0), MaxSeries: 1})
	calls := m.Counter("test.calls")
	calls.Overflow().Add(2)
	calls.At(nil, Int("number", 0)).Add(1)
	calls.At(nil, Int("number", 1)).Add(3)
	expect(t, collect(t, m, 1),
		"- test.calls map[otel.metric.overflow:true] 5 from 0s",
		"- test.calls map[number:0] 1 from 0s")
	m.Histogram("test.duration").Overflow().Merge(record(0, 1))
	m.Counter("test.off").Overflow().Add(1)
	if n := m.SeriesCount(); n != 3 {
		t.Errorf("%d series", n)
	}
}

// TestGaugeOverflow: sums add up within a collection, gauges keep the last.
func TestGaugeOverflow(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{Start: at(0), MaxSeries: 1})
	for second := 1; second <= 2; second++ {
		for key := range int64(4) {
			m.Gauge("test.open").At(nil, Int("number", key)).Set(10 + key)
			m.Gauge("test.level").At(nil, Int("number", key)).Set((10 + key) * 1e9)
		}
		expect(t, collect(t, m, second),
			"- test.open map[number:0] 10 from 0s",
			"- test.open map[otel.metric.overflow:true] 36 from 0s",
			"- test.level map[number:0] 10",
			"- test.level map[otel.metric.overflow:true] 13",
		)
	}
}

func TestExpiry(t *testing.T) {
	pod := NewResource(String("container.id", "c1"))
	m := NewMetrics(testMetadata(t), Options{Start: at(0), SeriesExpiry: 25 * time.Second})
	calls := m.Counter("test.calls")
	red, busy := calls.At(pod, String("color", "red")), calls.At(nil)
	red.Add(3)
	for second := 10; second <= 30; second += 10 {
		busy.Add(1)
		red.Add(0) // no change
		expect(t, collect(t, m, second),
			"map[container.id:c1] test.calls map[color:red] 3 from 0s",
			fmt.Sprintf("- test.calls - %d from 0s", second/10))
	}
	busy.Add(1)
	expect(t, collect(t, m, 40), "- test.calls - 4 from 0s")
	if red.Live() || !busy.Live() || len(m.groups) != 1 || len(m.byOwner) != 1 {
		t.Fatalf("live %v %v, %d groups", red.Live(), busy.Live(), len(m.groups))
	}
	again := calls.At(pod, String("color", "red"))
	again.Add(1)
	red.Add(1) // not asked for again, and not lost
	expect(t, collect(t, m, 50),
		"- test.calls - 4 from 0s",
		"map[container.id:c1] test.calls map[color:red] 2 from 40s")
	if red.Live() || !again.Live() {
		t.Error("the old point is live, or the new one is not")
	}
	// A clock that steps back expires nothing.
	expect(t, collect(t, m, 50),
		"- test.calls - 4 from 0s",
		"map[container.id:c1] test.calls map[color:red] 2 from 40s")
}

// TestOverflowExpiry: the overflow series expires like others, and what a stale
// point takes goes to its successor.
func TestOverflowExpiry(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{Start: at(0), SeriesExpiry: 15 * time.Second, MaxSeries: 1})
	open := m.Counter("test.calls")
	kept, over := open.At(nil, Int("number", 0)), open.At(nil, Int("number", 1))
	over.Add(1)
	for second := 10; second <= 30; second += 10 {
		kept.Add(1)
		collect(t, m, second)
	}
	if over.Live() || m.SeriesCount() != 1 {
		t.Fatalf("live %v, %d series", over.Live(), m.SeriesCount())
	}
	over.Add(5)
	over.Add(5)
	expect(t, collect(t, m, 40),
		"- test.calls map[number:0] 3 from 0s",
		"- test.calls map[otel.metric.overflow:true] 10 from 30s")
}

// TestCollisions puts series with equal hashes into one chain and takes them out
// in every order.
func TestCollisions(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		m := NewMetrics(testMetadata(t), Options{})
		f := (*family)(m.Counter("test.calls"))
		var chain []*series
		for range 3 {
			s := f.newSeries(m.options.Host, nil)
			s.hash, s.next = 1, f.index[1]
			f.index[1] = s
			f.live++
			chain = append(chain, s)
		}
		for removed, i := range order {
			f.remove(chain[i])
			n := 0
			for s := f.index[1]; s != nil; s = s.next {
				n++
				if s.dead {
					t.Errorf("order %v: a removed series is in the chain", order)
				}
			}
			if n != 2-removed {
				t.Errorf("order %v: %d left after %d", order, n, removed+1)
			}
		}
		if len(f.index) != 0 {
			t.Errorf("order %v: %d left", order, len(f.index))
		}
	}
}

// record puts durations into slots, as the kernel does.
func record(scale int, durations ...uint64) (slots []uint32, sum, minimum, maximum uint64) {
	slots, minimum = make([]uint32, HistogramSlots(scale)), math.MaxUint64
	for _, ns := range durations {
		slots[HistogramSlot(scale, ns)]++
		sum += ns
		minimum, maximum = min(minimum, ns), max(maximum, ns)
	}
	return slots, sum, minimum, maximum
}

func TestExponentialOutput(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{Start: at(0), Scale: 1})
	h := m.Histogram("test.duration")
	p := h.At(nil, String("color", "red"))
	// Bucket 0 of scale 1 ends at the square root of two; bucket -1 at 1 s.
	p.Merge(record(1, 0, 1e9, 1_414_213_562, 4e9))
	h.At(nil) // nothing yet
	metric := collect(t, m, 10).ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
	points := metric.ExponentialHistogram().DataPoints()
	point := points.At(0)
	if point.Scale() != 1 || point.Count() != 4 || point.ZeroCount() != 1 || point.Sum() != 6.414213562 ||
		point.Min() != 0 || point.Max() != 4 || point.StartTimestamp() != stamp(0) || point.Timestamp() != stamp(10) {
		t.Errorf("scale %d, count %d, zero %d, sum %v, min %v, max %v", point.Scale(), point.Count(), point.ZeroCount(), point.Sum(), point.Min(), point.Max())
	}
	if got := point.Positive(); got.Offset() != -1 || !reflect.DeepEqual(got.BucketCounts().AsRaw(), []uint64{1, 1, 0, 0, 1}) {
		t.Errorf("offset %d, counts %v", got.Offset(), got.BucketCounts().AsRaw())
	}
	if empty := points.At(1); empty.Count() != 0 || empty.HasMin() || empty.HasMax() || empty.Positive().BucketCounts().Len() != 0 {
		t.Errorf("empty point: count %d, min %v, max %v", empty.Count(), empty.HasMin(), empty.HasMax())
	}
	if metric.ExponentialHistogram().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
		t.Error("not cumulative")
	}
}

func TestExplicitOutput(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{Start: at(0), Scale: 3, Histogram: Explicit})
	m.Histogram("test.duration").At(nil).Merge(record(3, 0, 1, 953, 954, 1e9, 1e9+1, 64e9, 64e9+1, math.MaxUint64>>1))
	point := collect(t, m, 10).ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Histogram().DataPoints().At(0)
	want := make([]uint64, 28)
	want[0] = 3  // 0, 1 and 953 ns are below 2^-20 s = 953.67 ns
	want[1] = 1  // 954 ns
	want[20] = 1 // 1 s, upper bound included
	want[21] = 1 // just above
	want[26] = 1 // 64 s
	want[27] = 2
	if got := point.BucketCounts().AsRaw(); !reflect.DeepEqual(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	if point.Count() != 9 || point.Min() != 0 || point.Max() != float64(math.MaxUint64>>1)/1e9 || point.ExplicitBounds().Len() != 27 {
		t.Errorf("count %d, min %v, max %v, %d bounds", point.Count(), point.Min(), point.Max(), point.ExplicitBounds().Len())
	}
}

// TestExtremesAfterExpiry: the kernel's extremes outlive the series; those that
// are not the new series' own are left out.
func TestExtremesAfterExpiry(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{Start: at(0), SeriesExpiry: time.Second})
	h := m.Histogram("test.duration")
	p := h.At(nil)
	p.Merge(record(0, 10, 1e9))
	collect(t, m, 1)
	collect(t, m, 2)
	if p.Live() {
		t.Fatal("still live")
	}
	slots, sum, _, _ := record(0, 10, 20)
	p.Merge(slots, sum, 10, 1e9)
	point := collect(t, m, 3).ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).ExponentialHistogram().DataPoints().At(0)
	if point.Count() != 2 || !point.HasMin() || point.Min() != 10e-9 || point.HasMax() || point.StartTimestamp() != stamp(2) {
		t.Errorf("count %d, min %v, max %v, start %v", point.Count(), point.Min(), point.Max(), point.StartTimestamp())
	}
}

// TestSteadyState: updating and asking for series that exist does not allocate.
func TestSteadyState(t *testing.T) {
	m := NewMetrics(testMetadata(t), Options{})
	calls, h := m.Counter("test.calls"), m.Histogram("test.duration")
	pod := NewResource(String("container.id", "c1"))
	point, histogram := calls.At(pod, String("color", "red"), Int("number", 3)), h.At(pod)
	slots, sum, minimum, maximum := record(0, 1, 1000, 1e9)
	histogram.Merge(slots, sum, minimum, maximum)
	if n := testing.AllocsPerRun(100, func() {
		point.Add(1)
		calls.At(pod, String("color", "red"), Int("number", 3)).Add(1)
		histogram.Merge(slots, sum, minimum, maximum)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
