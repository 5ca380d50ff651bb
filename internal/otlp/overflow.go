package otlp

// Overflow returns the series for what the kernel could not count under a key of
// its own because its map was full; it is the same that takes the keys beyond
// MaxSeries.
func (c *Counter) Overflow() *Point { return (*Point)((*family)(c).overflowSeries()) }

// Overflow is Counter.Overflow for histograms.
func (h *Histogram) Overflow() *HistogramPoint {
	return (*HistogramPoint)((*family)(h).overflowSeries())
}

// overflowSeries returns the overflow series, made on first use.
func (f *family) overflowSeries() *series {
	if f.discard != nil {
		return f.discard
	}
	if f.overflow == nil {
		f.overflow = f.newSeries(f.metrics.options.Host, []Attr{Bool(overflowKey, true)})
		f.metrics.add(f.overflow)
	}
	return f.overflow
}
