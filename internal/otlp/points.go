package otlp

import "otelcol-ebpf/internal/metadata"

// Counter is a metric whose points only grow: a monotonic cumulative sum.
type Counter family

// Gauge is a metric whose points are set: a gauge, or a sum that is not
// monotonic. A point is exported by the collections that set it, and not by
// others: what a collection did not find does not exist any more.
type Gauge family

// Histogram is a distribution of durations, as bpf/include/histogram.h counts them.
type Histogram family

// Counter returns the metric of that name. It panics if the metadata does not
// declare it as a monotonic sum. Points of a disabled metric accept and discard.
func (m *Metrics) Counter(name string) *Counter {
	return (*Counter)(m.family(name, func(decl metadata.Metric) (kind, string, bool) {
		if decl.Sum == nil || !decl.Sum.Monotonic {
			return 0, "", false
		}
		return counterKind, decl.Sum.ValueType, true
	}))
}

// Gauge returns the metric of that name. It panics if the metadata does not
// declare it as a gauge or a sum that is not monotonic. Points of a disabled
// metric accept and discard.
func (m *Metrics) Gauge(name string) *Gauge {
	return (*Gauge)(m.family(name, func(decl metadata.Metric) (kind, string, bool) {
		switch {
		case decl.Gauge != nil:
			return gaugeKind, decl.Gauge.ValueType, true
		case decl.Sum != nil && !decl.Sum.Monotonic:
			return upDownKind, decl.Sum.ValueType, true
		}
		return 0, "", false
	}))
}

// Histogram returns the metric of that name. It panics if the metadata does not
// declare it as a histogram with unit s. Points of a disabled metric accept and
// discard.
func (m *Metrics) Histogram(name string) *Histogram {
	return (*Histogram)(m.family(name, func(decl metadata.Metric) (kind, string, bool) {
		if decl.Histogram == nil || decl.Unit != "s" {
			return 0, "", false
		}
		return histogramKind, decl.Histogram.ValueType, true
	}))
}

// Enabled tells that the metric is exported. A probe may leave out the work for
// one that is not.
func (c *Counter) Enabled() bool { return c.discard == nil }

// Enabled tells that the metric is exported.
func (g *Gauge) Enabled() bool { return g.discard == nil }

// Enabled tells that the metric is exported.
func (h *Histogram) Enabled() bool { return h.discard == nil }

// Point is one series of a Counter.
type Point series

// GaugePoint is one series of a Gauge.
type GaugePoint series

// HistogramPoint is one series of a Histogram.
type HistogramPoint series

// At finds or makes the series of a resource, nil being the host, and a set of
// attributes in any order. It panics if the metric's metadata does not list an
// attribute with that type. Callers keep the point for as long as it is live;
// asking again does not allocate.
func (c *Counter) At(r *Resource, attrs ...Attr) *Point {
	return (*Point)((*family)(c).at(r, attrs))
}

// At is Counter.At for gauges.
func (g *Gauge) At(r *Resource, attrs ...Attr) *GaugePoint {
	return (*GaugePoint)((*family)(g).at(r, attrs))
}

// At is Counter.At for histograms.
func (h *Histogram) At(r *Resource, attrs ...Attr) *HistogramPoint {
	return (*HistogramPoint)((*family)(h).at(r, attrs))
}

// Add adds to the sum. For a metric of type double and unit s, delta is in
// nanoseconds: they add up as integers and become seconds when they leave.
//
// A point that is not live still takes it: the key's new series gets it.
func (p *Point) Add(delta uint64) {
	if delta == 0 {
		return
	}
	s := (*series)(p).again()
	s.value += delta
	s.touched = true
}

// Live tells that the point is still the key's series. It is false once the
// series expired, and for the overflow series when there is room for another
// one; the caller then asks At again.
func (p *Point) Live() bool { return (*series)(p).isLive() }

// Set sets the value that the next AppendTo exports; for a metric of type double
// and unit s it is in nanoseconds. Set is called in each collection for each key
// that exists, changed or not.
//
// Keys that share the overflow series of a sum are added up within a collection;
// of those that share a gauge's, the last one counts, as in OpenTelemetry's SDKs.
func (p *GaugePoint) Set(value int64) {
	s := (*series)(p).again()
	if s.touched && s.family.kind == upDownKind && s == s.family.overflow {
		s.value += uint64(value)
	} else {
		s.value = uint64(value)
	}
	s.touched = true
}

// Live is Point.Live for gauges.
func (p *GaugePoint) Live() bool { return (*series)(p).isLive() }

// Merge adds what the kernel counted since the last call: slots as
// bpf/include/histogram.h numbers them at Options.Scale, and sum in nanoseconds.
// minimum and maximum are the kernel's cumulative ones in nanoseconds, with all
// bits of minimum set if there is none yet. Merge does not keep slots.
//
// A point that is not live still takes it: the key's new series gets it.
func (p *HistogramPoint) Merge(slots []uint32, sum, minimum, maximum uint64) {
	s := (*series)(p)
	if s.family.discard != nil {
		return
	}
	if s = s.again(); s.hist.merge(slots, sum, minimum, maximum) {
		s.touched = true
	}
}

// Live is Point.Live for histograms.
func (p *HistogramPoint) Live() bool { return (*series)(p).isLive() }
