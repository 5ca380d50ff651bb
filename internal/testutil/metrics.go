package testutil

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
)

// Point is one data point of a collection, as tests compare it.
type Point struct {
	Metric string
	// Resource and Attributes are those of the point.
	Resource, Attributes map[string]any
	Start, Time          time.Time
	// Value is a sum's or a gauge's value, Count, Sum, Min and Max a histogram's.
	Value         float64
	Count         uint64
	Sum, Min, Max float64
	// Positive are an exponential histogram's counts, the first one of bucket Offset.
	Scale, Offset int32
	Positive      []uint64
	Zero          uint64
}

// Collection reads a probe as the engine does.
type Collection struct {
	meta      metadata.Metadata
	collector probe.Collector
	metrics   *otlp.Metrics
}

// NewCollection returns a Collection of a started probe.
func NewCollection(tb testing.TB, t probe.Type, p probe.Probe, options otlp.Options) *Collection {
	tb.Helper()
	collector, ok := p.(probe.Collector)
	if !ok {
		tb.Fatalf("%s has no metrics", t.Metadata.Type)
	}
	return &Collection{meta: t.Metadata, collector: collector, metrics: otlp.NewMetrics(t.Metadata, options)}
}

// Probe is the probe that it reads.
func (c *Collection) Probe() probe.Collector { return c.collector }

// Metrics collects once, and fails the test unless all is as metadata.yaml says.
func (c *Collection) Metrics(tb testing.TB) pmetric.Metrics {
	tb.Helper()
	batch := otlp.NewBatch(time.Now())
	if err := c.collector.Collect(c.metrics); err != nil {
		tb.Fatal(err)
	}
	c.metrics.AppendTo(batch)
	metrics := batch.Metrics()
	if err := otlp.CheckMetrics(c.meta, metrics); err != nil {
		tb.Fatal(err)
	}
	return metrics
}

// Points collects once and returns the points.
func (c *Collection) Points(tb testing.TB) Points {
	tb.Helper()
	return PointsOf(c.Metrics(tb))
}

// Points are the points of one collection.
type Points []Point

// PointsOf flattens metrics.
func PointsOf(metrics pmetric.Metrics) Points {
	var points Points
	for _, rm := range metrics.ResourceMetrics().All() {
		resource := rm.Resource().Attributes().AsRaw()
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				for _, p := range pointsOf(metric) {
					p.Metric, p.Resource = metric.Name(), resource
					points = append(points, p)
				}
			}
		}
	}
	return points
}

func pointsOf(metric pmetric.Metric) Points {
	var points Points
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		points = numbers(metric.Sum().DataPoints())
	case pmetric.MetricTypeGauge:
		points = numbers(metric.Gauge().DataPoints())
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range metric.ExponentialHistogram().DataPoints().All() {
			points = append(points, Point{
				Attributes: p.Attributes().AsRaw(), Start: p.StartTimestamp().AsTime(), Time: p.Timestamp().AsTime(),
				Count: p.Count(), Sum: p.Sum(), Min: p.Min(), Max: p.Max(), Scale: p.Scale(), Zero: p.ZeroCount(),
				Offset: p.Positive().Offset(), Positive: p.Positive().BucketCounts().AsRaw(),
			})
		}
	case pmetric.MetricTypeHistogram:
		for _, p := range metric.Histogram().DataPoints().All() {
			points = append(points, Point{
				Attributes: p.Attributes().AsRaw(), Start: p.StartTimestamp().AsTime(), Time: p.Timestamp().AsTime(),
				Count: p.Count(), Sum: p.Sum(), Min: p.Min(), Max: p.Max(), Positive: p.BucketCounts().AsRaw(),
			})
		}
	}
	return points
}

func numbers(slice pmetric.NumberDataPointSlice) Points {
	var points Points
	for _, p := range slice.All() {
		value := p.DoubleValue()
		if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
			value = float64(p.IntValue())
		}
		points = append(points, Point{
			Attributes: p.Attributes().AsRaw(), Start: p.StartTimestamp().AsTime(), Time: p.Timestamp().AsTime(), Value: value,
		})
	}
	return points
}

// Of returns the metric's points whose resource and attributes together have all
// of the wanted pairs: "process.pid", 12, "error.type", "ENOENT". A wanted nil is an
// attribute that must be absent.
func (points Points) Of(metric string, pairs ...any) Points {
	return slices.DeleteFunc(slices.Clone(points), func(p Point) bool {
		if p.Metric != metric {
			return true
		}
		for i := 0; i < len(pairs); i += 2 {
			key, want := pairs[i].(string), pairs[i+1]
			got, ok := p.Attributes[key]
			if !ok {
				got, ok = p.Resource[key]
			}
			if ok != (want != nil) || ok && fmt.Sprint(got) != fmt.Sprint(want) {
				return true
			}
		}
		return false
	})
}

// Total is the sum of the values of Of's points.
func (points Points) Total(metric string, pairs ...any) float64 {
	total := 0.0
	for _, p := range points.Of(metric, pairs...) {
		total += p.Value
	}
	return total
}

// Distribution adds up Of's histograms: their count and sum.
func (points Points) Distribution(metric string, pairs ...any) (count uint64, sum float64) {
	for _, p := range points.Of(metric, pairs...) {
		count += p.Count
		sum += p.Sum
	}
	return count, sum
}

// Shape describes what metrics consist of, without values: for each metric its
// unit and kind, and each set of attribute keys that its points have, with types.
func Shape(metrics pmetric.Metrics) string {
	lines := map[string]bool{}
	for _, rm := range metrics.ResourceMetrics().All() {
		lines["resource "+keys(rm.Resource().Attributes())] = true
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				head := fmt.Sprintf("metric %s [%s] %s", metric.Name(), metric.Unit(), kindOf(metric))
				eachAttributes(metric, func(m pcommon.Map) { lines[head+" "+keys(m)] = true })
			}
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(lines)), "\n") + "\n"
}

func kindOf(metric pmetric.Metric) string {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		sum := metric.Sum()
		return fmt.Sprintf("Sum monotonic=%t %s %s", sum.IsMonotonic(), sum.AggregationTemporality(), sum.DataPoints().At(0).ValueType())
	case pmetric.MetricTypeGauge:
		return "Gauge " + metric.Gauge().DataPoints().At(0).ValueType().String()
	case pmetric.MetricTypeExponentialHistogram:
		return "ExponentialHistogram " + metric.ExponentialHistogram().AggregationTemporality().String()
	case pmetric.MetricTypeHistogram:
		return "Histogram " + metric.Histogram().AggregationTemporality().String()
	}
	return metric.Type().String()
}

func eachAttributes(metric pmetric.Metric, visit func(pcommon.Map)) {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		for _, p := range metric.Sum().DataPoints().All() {
			visit(p.Attributes())
		}
	case pmetric.MetricTypeGauge:
		for _, p := range metric.Gauge().DataPoints().All() {
			visit(p.Attributes())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range metric.ExponentialHistogram().DataPoints().All() {
			visit(p.Attributes())
		}
	case pmetric.MetricTypeHistogram:
		for _, p := range metric.Histogram().DataPoints().All() {
			visit(p.Attributes())
		}
	}
}

func keys(m pcommon.Map) string {
	var all []string
	for key, value := range m.All() {
		all = append(all, key+":"+value.Type().String())
	}
	slices.Sort(all)
	return "{" + strings.Join(all, " ") + "}"
}

// Golden compares text with testdata/name. With UPDATE_GOLDEN=1 in the environment it
// writes the file.
func Golden(tb testing.TB, name, text string) {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if string(want) != text {
		tb.Errorf("%s differs. Got:\n%swant:\n%s(UPDATE_GOLDEN=1 accepts it)", path, text, want)
	}
}
