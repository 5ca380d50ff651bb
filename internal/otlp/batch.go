package otlp

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Batch assembles one collection of all probes: one ResourceMetrics for each
// *Resource, in it one ScopeMetrics for each probe. It is not safe for concurrent
// use.
type Batch struct {
	now       time.Time
	timestamp pcommon.Timestamp
	metrics   pmetric.Metrics
	resources map[*Resource]pmetric.ResourceMetrics
}

// NewBatch returns an empty batch whose points have the timestamp now, which is
// best taken just before the probes read their maps. Keep the monotonic reading
// in it: expiry goes by it.
func NewBatch(now time.Time) *Batch {
	return &Batch{
		now:       now,
		timestamp: pcommon.NewTimestampFromTime(now),
		metrics:   pmetric.NewMetrics(),
		resources: map[*Resource]pmetric.ResourceMetrics{},
	}
}

// Metrics returns what was appended; the batch must not be used any more. It has
// no ResourceMetrics if there is nothing to say.
func (b *Batch) Metrics() pmetric.Metrics {
	return b.metrics
}

func (b *Batch) resource(r *Resource, schemaURL string) pmetric.ResourceMetrics {
	if rm, ok := b.resources[r]; ok {
		return rm
	}
	rm := b.metrics.ResourceMetrics().AppendEmpty()
	rm.SetSchemaUrl(schemaURL)
	r.Fill(rm.Resource().Attributes())
	b.resources[r] = rm
	return rm
}

// AppendTo ends a collection: it drops what expired, writes all other series into
// the batch, and takes the batch's time for the start of series that appear later.
func (m *Metrics) AppendTo(b *Batch) {
	m.elapsed += max(b.now.Sub(m.collected), 0)
	groups := m.groups[:0]
	for _, g := range m.groups {
		kept, exported := m.sweep(g)
		if exported > 0 {
			m.appendGroup(b, g)
		}
		if kept == 0 {
			delete(m.byOwner, g.resource)
			continue
		}
		groups = append(groups, g)
	}
	clear(m.groups[len(groups):])
	m.groups = groups
	m.collected = b.now
}

// sweep removes the group's expired series and returns how many remain and how
// many of them are exported now.
func (m *Metrics) sweep(g *group) (kept, exported int) {
	expiry := m.options.SeriesExpiry
	for i, cell := range g.cells {
		alive := cell[:0]
		for _, s := range cell {
			if s.touched {
				s.changed = m.elapsed
			} else if expiry > 0 && m.elapsed-s.changed >= expiry {
				s.family.remove(s)
				continue
			}
			if s.exported() {
				exported++
			}
			alive = append(alive, s)
		}
		clear(cell[len(alive):])
		g.cells[i] = alive
		kept += len(alive)
	}
	return kept, exported
}

// exported tells that the series has a point in this collection.
func (s *series) exported() bool {
	return s.touched || s.family.kind == counterKind || s.family.kind == histogramKind
}

func (m *Metrics) appendGroup(b *Batch, g *group) {
	sm := b.resource(g.resource, m.options.SchemaURL).ScopeMetrics().AppendEmpty()
	sm.SetSchemaUrl(m.options.SchemaURL)
	sm.Scope().SetName(m.options.ScopeName)
	sm.Scope().SetVersion(m.options.ScopeVersion)
	for number, cell := range g.cells {
		n := 0
		for _, s := range cell {
			if s.exported() {
				n++
			}
		}
		if n == 0 {
			continue
		}
		f := m.families[number]
		metric := sm.Metrics().AppendEmpty()
		metric.SetName(f.exported)
		metric.SetDescription(f.decl.Description)
		metric.SetUnit(f.decl.Unit)
		f.appendPoints(metric, cell, n, b.timestamp)
	}
}

// appendPoints writes the n exported series of cell.
func (f *family) appendPoints(metric pmetric.Metric, cell []*series, n int, now pcommon.Timestamp) {
	switch f.kind {
	case histogramKind:
		f.appendHistograms(metric, cell, now)
	case gaugeKind:
		f.appendNumbers(metric.SetEmptyGauge().DataPoints(), cell, n, now)
	default:
		sum := metric.SetEmptySum()
		sum.SetIsMonotonic(f.kind == counterKind)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		f.appendNumbers(sum.DataPoints(), cell, n, now)
	}
}

func (f *family) appendNumbers(points pmetric.NumberDataPointSlice, cell []*series, n int, now pcommon.Timestamp) {
	points.EnsureCapacity(n)
	for _, s := range cell {
		if !s.exported() {
			continue
		}
		s.touched = false
		point := points.AppendEmpty()
		point.SetTimestamp(now)
		if f.kind != gaugeKind {
			point.SetStartTimestamp(s.start)
		}
		switch {
		case f.inSeconds && f.kind == counterKind:
			point.SetDoubleValue(seconds(s.value))
		case f.inSeconds:
			point.SetDoubleValue(float64(int64(s.value)) / 1e9)
		case f.double && f.kind == counterKind:
			point.SetDoubleValue(float64(s.value))
		case f.double:
			point.SetDoubleValue(float64(int64(s.value)))
		default:
			point.SetIntValue(int64(s.value))
		}
		fill(point.Attributes(), s.attrs)
	}
}

func (f *family) appendHistograms(metric pmetric.Metric, cell []*series, now pcommon.Timestamp) {
	if f.metrics.options.Histogram == Explicit {
		histogram := metric.SetEmptyHistogram()
		histogram.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		histogram.DataPoints().EnsureCapacity(len(cell))
		for _, s := range cell {
			s.touched = false
			point := histogram.DataPoints().AppendEmpty()
			point.SetTimestamp(now)
			point.SetStartTimestamp(s.start)
			fill(point.Attributes(), s.attrs)
			f.metrics.writeExplicit(point, s.hist)
		}
		return
	}
	histogram := metric.SetEmptyExponentialHistogram()
	histogram.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	histogram.DataPoints().EnsureCapacity(len(cell))
	for _, s := range cell {
		s.touched = false
		point := histogram.DataPoints().AppendEmpty()
		point.SetTimestamp(now)
		point.SetStartTimestamp(s.start)
		fill(point.Attributes(), s.attrs)
		writeExponential(point, s.hist, f.metrics.options.Scale)
	}
}

func writeExponential(point pmetric.ExponentialHistogramDataPoint, d *distribution, scale int) {
	point.SetScale(int32(scale))
	point.SetCount(d.count)
	point.SetSum(seconds(d.sum))
	point.SetZeroCount(d.zero)
	minimum, maximum, hasMin, hasMax := d.extremes(scale)
	if hasMin {
		point.SetMin(seconds(minimum))
	}
	if hasMax {
		point.SetMax(seconds(maximum))
	}
	if len(d.counts) > 0 {
		point.Positive().SetOffset(int32(bucketOf(d.first, scale)))
		point.Positive().BucketCounts().FromRaw(d.counts)
	}
}

func (m *Metrics) writeExplicit(point pmetric.HistogramDataPoint, d *distribution) {
	point.SetCount(d.count)
	point.SetSum(seconds(d.sum))
	minimum, maximum, hasMin, hasMax := d.extremes(m.options.Scale)
	if hasMin {
		point.SetMin(seconds(minimum))
	}
	if hasMax {
		point.SetMax(seconds(maximum))
	}
	var buckets [highestBound - lowestBound + 2]uint64
	buckets[0] = d.zero
	for i, n := range d.counts {
		buckets[explicitBucket(d.first+i, m.options.Scale)] += n
	}
	point.ExplicitBounds().FromRaw(m.explicit)
	point.BucketCounts().FromRaw(buckets[:])
}
