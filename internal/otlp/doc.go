// Package otlp turns what probes measure into OTLP: cumulative sums, gauges and
// histograms (Metrics, Batch) and log records (Logs).
//
// Everything is driven by the probe's metadata.yaml: names, units, kinds and
// severities are looked up once, when a probe asks for a Counter or an
// EventKind, and a name or an attribute that the metadata does not declare is a
// programming error that panics there. Check and CheckMetrics verify finished
// output against the metadata in the probes' tests.
//
// A series is a resource and a set of attributes of one metric. Its value is
// cumulative since its start timestamp; the number of series per metric is
// bounded (Options.MaxSeries), and what exceeds the bound is added to one
// overflow series, so sums over all series stay exact.
package otlp
