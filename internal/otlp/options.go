package otlp

import "time"

// HistogramKind is the form in which histograms leave.
type HistogramKind int

const (
	// Exponential histograms have 2^scale buckets per power of two.
	Exponential HistogramKind = iota
	// Explicit histograms have one bucket per power of two seconds, from 2^-20 s
	// to 2^6 s. These bounds are bounds of the kernel's slots at every scale, so
	// folding the slots loses nothing but resolution.
	Explicit
)

// Options configure Metrics and Logs. The zero value is usable: exponential
// histograms of scale 0, no limits, what metadata enables is enabled.
type Options struct {
	Histogram HistogramKind
	// Scale is the scale of the kernel's histogram slots, 0 to MaxScale.
	Scale int
	// MaxSeries bounds the series of each metric. Keys beyond it share one
	// further series on Host with the attribute otel.metric.overflow=true.
	// 0 is no bound.
	MaxSeries int
	// SeriesExpiry is how long a series may stay unchanged before it is dropped.
	// When it changes again it starts from zero with a new start timestamp.
	// 0 keeps series for ever.
	SeriesExpiry time.Duration
	// Host is the host's resource: it carries overflow series, and stands for a
	// nil *Resource. If nil, a resource without attributes is made.
	Host *Resource
	// Now is the wall clock; nil is time.Now. It is read only where Start is zero.
	Now func() time.Time
	// Start is when the probe attached, which is when its kernel state was empty.
	// It is the start timestamp of the series of the first collection. Later ones
	// start at the time of the collection before they were first seen: then they
	// did not exist yet, so that is the interval in which they grew from zero.
	// The zero time is the time of the call of NewMetrics.
	Start time.Time
	// Enabled overrides `enabled:` of the metadata per metric and event name.
	Enabled map[string]bool
	// Scope is what series are split by: host, container or process. It selects
	// among the names that metadata gives a metric.
	Scope string
	// ScopeName and ScopeVersion name the instrumentation scope; SchemaURL is set
	// on resources and scopes.
	ScopeName, ScopeVersion, SchemaURL string
}

// enabled applies the override for name to the metadata's word.
func (o *Options) enabled(name string, declared bool) bool {
	if override, ok := o.Enabled[name]; ok {
		return override
	}
	return declared
}
