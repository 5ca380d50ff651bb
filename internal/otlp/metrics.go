package otlp

import (
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"otelcol-ebpf/internal/metadata"
)

// overflowKey marks the series that stands for the keys beyond MaxSeries;
// https://opentelemetry.io/docs/specs/otel/metrics/sdk/#overflow-attribute.
const overflowKey = "otel.metric.overflow"

// Metrics holds the series of one probe for the probe's whole life: the probe's
// Collect updates points, AppendTo writes them into a batch. It is not safe for
// concurrent use.
type Metrics struct {
	meta     metadata.Metadata
	options  Options
	seed     maphash.Seed
	explicit []float64 // bounds of explicit histograms

	families []*family
	byName   map[string]*family
	groups   []*group
	byOwner  map[*Resource]*group

	// collected is when AppendTo last ran, or the probe attached: the start of
	// series that appear now.
	collected time.Time
	// elapsed is the sum of the intervals between collections, which a step of
	// the wall clock does not disturb where times carry a monotonic reading.
	elapsed time.Duration
}

// NewMetrics returns a Metrics without series. It panics if o.Scale is not one
// that the kernel's histograms have.
func NewMetrics(meta metadata.Metadata, o Options) *Metrics {
	if o.Scale < 0 || o.Scale > MaxScale {
		panic(fmt.Sprintf("otlp: histogram scale %d, want 0 to %d", o.Scale, MaxScale))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Host == nil {
		o.Host = NewResource()
	}
	if o.Start.IsZero() {
		o.Start = o.Now()
	}
	return &Metrics{
		meta:      meta,
		options:   o,
		seed:      maphash.MakeSeed(),
		explicit:  explicitBounds(),
		byName:    map[string]*family{},
		byOwner:   map[*Resource]*group{},
		collected: o.Start,
	}
}

// SeriesCount returns how many series there are, overflow series included.
func (m *Metrics) SeriesCount() int {
	n := 0
	for _, f := range m.families {
		n += f.live
		if f.overflow != nil {
			n++
		}
	}
	return n
}

// Overflows returns how often At answered with an overflow series since
// NewMetrics.
func (m *Metrics) Overflows() uint64 {
	n := uint64(0)
	for _, f := range m.families {
		n += f.overflows
	}
	return n
}

// kind is the shape of a metric's data.
type kind int

const (
	counterKind kind = iota
	upDownKind       // a sum that is not monotonic
	gaugeKind
	histogramKind
)

// family is one metric and all its series.
type family struct {
	metrics *Metrics
	number  int // place in Metrics.families
	name    string
	// exported is the name that the metric leaves under: see Metric.ScopeNames.
	exported string
	decl     metadata.Metric
	kind     kind
	double   bool // values leave as float64
	// inSeconds: points count nanoseconds, and values leave in seconds.
	inSeconds bool

	index     map[uint64]*series // by hash, chained through series.next
	live      int                // series in index
	overflow  *series            // nil until needed
	overflows uint64
	discard   *series // takes all updates of a disabled metric; nil if enabled
}

// group is one resource's series of all metrics.
type group struct {
	resource *Resource
	cells    [][]*series // by family.number
}

// series is one resource and set of attributes of a metric. Point, GaugePoint
// and HistogramPoint are names for it that restrict what may be done.
type series struct {
	family   *family
	resource *Resource
	attrs    []Attr
	hash     uint64
	next     *series
	start    pcommon.Timestamp
	changed  time.Duration // Metrics.elapsed at the collection that last saw touched
	value    uint64        // the sum, or an int64 in two's complement
	hist     *distribution // of histograms only
	touched  bool          // updated since the last collection
	dead     bool
}

// family returns the metric, made on first use, and panics unless metadata
// declares it as one that fits.
func (m *Metrics) family(name string, fits func(metadata.Metric) (kind, string, bool)) *family {
	if f, ok := m.byName[name]; ok {
		if k, _, ok := fits(f.decl); !ok || k != f.kind {
			panic(fmt.Sprintf("otlp: metric %s of %s is used as what it is not", name, m.meta.Type))
		}
		return f
	}
	decl, ok := m.meta.Metrics[name]
	if !ok {
		panic(fmt.Sprintf("otlp: metric %s is not in the metadata of %s", name, m.meta.Type))
	}
	k, valueType, ok := fits(decl)
	if !ok {
		panic(fmt.Sprintf("otlp: metadata of %s declares metric %s as another kind", m.meta.Type, name))
	}
	f := &family{
		metrics: m,
		number:  len(m.families),
		name:    name,
		decl:    decl,
		kind:    k,
		double:  valueType == "double",
		index:   map[uint64]*series{},
	}
	f.exported = name
	if other, ok := decl.ScopeNames[m.options.Scope]; ok {
		f.exported = other
	}
	f.inSeconds = f.double && decl.Unit == "s"
	if !m.options.enabled(name, decl.Enabled) {
		f.discard = f.newSeries(m.options.Host, nil)
	}
	m.families = append(m.families, f)
	m.byName[name] = f
	return f
}

// at finds or makes a series.
func (f *family) at(r *Resource, attrs []Attr) *series {
	if f.discard != nil {
		return f.discard
	}
	if r == nil {
		r = f.metrics.options.Host
	}
	hash := maphash.Comparable(f.metrics.seed, r)
	for _, a := range attrs {
		// A sum, so that the order of attributes does not matter.
		hash += maphash.Comparable(f.metrics.seed, a)
	}
	for s := f.index[hash]; s != nil; s = s.next {
		if s.resource == r && sameAttrs(s.attrs, attrs) {
			return s
		}
	}
	f.checkAttrs(attrs)
	if f.full() {
		f.overflows++
		return f.overflowSeries()
	}
	s := f.newSeries(r, slices.Clone(attrs))
	s.hash, s.next = hash, f.index[hash]
	f.index[hash] = s
	f.live++
	f.metrics.add(s)
	return s
}

// full tells that a further key goes to the overflow series.
func (f *family) full() bool {
	limit := f.metrics.options.MaxSeries
	return limit > 0 && f.live >= limit
}

func (f *family) newSeries(r *Resource, attrs []Attr) *series {
	s := &series{
		family:   f,
		resource: r,
		attrs:    attrs,
		start:    pcommon.NewTimestampFromTime(f.metrics.collected),
		changed:  f.metrics.elapsed,
	}
	if f.kind == histogramKind {
		s.hist = &distribution{min: ^uint64(0)}
	}
	return s
}

// checkAttrs panics if an attribute is not declared for the metric, has another
// type there, or occurs twice.
func (f *family) checkAttrs(attrs []Attr) {
	for i, a := range attrs {
		if !slices.Contains(f.decl.Attributes, a.Key) {
			panic(fmt.Sprintf("otlp: attribute %s is not declared for metric %s", a.Key, f.name))
		}
		if want := f.metrics.meta.Attributes[a.Key].Type; typeName(a.kind) != want {
			panic(fmt.Sprintf("otlp: attribute %s of metric %s is a %s, metadata says %s", a.Key, f.name, typeName(a.kind), want))
		}
		for _, other := range attrs[:i] {
			if other.Key == a.Key {
				panic(fmt.Sprintf("otlp: attribute %s twice for metric %s", a.Key, f.name))
			}
		}
	}
}

// sameAttrs compares two sets of attributes without double keys.
func sameAttrs(a, b []Attr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range b {
		if a[i] != b[i] && !slices.Contains(a, b[i]) {
			return false
		}
	}
	return true
}

// add puts a series into its resource's group.
func (m *Metrics) add(s *series) {
	g, ok := m.byOwner[s.resource]
	if !ok {
		g = &group{resource: s.resource}
		m.byOwner[s.resource] = g
		m.groups = append(m.groups, g)
	}
	if missing := len(m.families) - len(g.cells); missing > 0 {
		g.cells = append(g.cells, make([][]*series, missing)...)
	}
	g.cells[s.family.number] = append(g.cells[s.family.number], s)
}

// remove forgets an expired series; its group is swept by the caller.
func (f *family) remove(s *series) {
	s.dead = true
	if s == f.overflow {
		f.overflow = nil
		return
	}
	f.live--
	if first := f.index[s.hash]; first == s {
		if s.next == nil {
			delete(f.index, s.hash)
		} else {
			f.index[s.hash] = s.next
		}
	} else {
		for first.next != s {
			first = first.next
		}
		first.next = s.next
	}
}

// isLive is what the points' Live methods say.
func (s *series) isLive() bool {
	return !s.dead && (s.family.overflow != s || s.family.full())
}

// again returns the series that s's key has now: s itself unless it expired.
func (s *series) again() *series {
	if !s.dead {
		return s
	}
	if len(s.attrs) == 1 && s.attrs[0].Key == overflowKey {
		return s.family.overflowSeries()
	}
	return s.family.at(s.resource, s.attrs)
}
