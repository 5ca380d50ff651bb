package otlp

import (
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"otelcol-ebpf/internal/metadata"
)

// typeName is the metadata's word for the type of a value, "" if it has none.
func typeName(t pcommon.ValueType) string {
	switch t {
	case pcommon.ValueTypeStr:
		return "string"
	case pcommon.ValueTypeInt:
		return "int"
	case pcommon.ValueTypeBool:
		return "bool"
	case pcommon.ValueTypeDouble:
		return "double"
	case pcommon.ValueTypeSlice:
		return "slice"
	}
	return ""
}

// Check verifies a probe's log records against its metadata: names, severities,
// timestamps, attributes, their types and their enumerated values. It is for tests.
// The error joins all that is wrong.
func Check(meta metadata.Metadata, logs plog.Logs) error {
	var errs []error
	for _, rl := range logs.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for i, record := range sl.LogRecords().All() {
				if err := checkRecord(meta, record); err != nil {
					errs = append(errs, fmt.Errorf("record %d, event %q: %w", i, record.EventName(), err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func checkRecord(meta metadata.Metadata, record plog.LogRecord) error {
	decl, ok := meta.Events[record.EventName()]
	if !ok {
		return errors.New("event is not declared")
	}
	var errs []error
	number, text := severity(decl.Severity)
	if record.SeverityNumber() != number || record.SeverityText() != text {
		errs = append(errs, fmt.Errorf("severity %d %q, metadata says %q", record.SeverityNumber(), record.SeverityText(), decl.Severity))
	}
	if record.Timestamp() == 0 || record.ObservedTimestamp() == 0 {
		errs = append(errs, errors.New("timestamp or observed timestamp missing"))
	}
	errs = append(errs, checkAttributes(meta, decl.Attributes, record.Attributes()))
	return errors.Join(errs...)
}

// checkAttributes compares attributes with the declarations of those allowed.
func checkAttributes(meta metadata.Metadata, allowed []string, attributes pcommon.Map) error {
	var errs []error
	seen := map[string]bool{}
	for key, value := range attributes.All() {
		decl := meta.Attributes[key]
		switch {
		case seen[key]:
			errs = append(errs, fmt.Errorf("attribute %s: twice", key))
		case !slices.Contains(allowed, key):
			errs = append(errs, fmt.Errorf("attribute %s: not declared here", key))
		case typeName(value.Type()) != decl.Type:
			errs = append(errs, fmt.Errorf("attribute %s: type %s, metadata says %s", key, value.Type(), decl.Type))
		case len(decl.Enum) > 0 && !slices.Contains(decl.Enum, value.AsString()):
			errs = append(errs, fmt.Errorf("attribute %s: value %q is not in its enum", key, value.AsString()))
		}
		if value.Type() == pcommon.ValueTypeSlice {
			for _, element := range value.Slice().All() {
				if element.Type() != pcommon.ValueTypeStr {
					errs = append(errs, fmt.Errorf("attribute %s: element of type %s, want string", key, element.Type()))
				}
			}
		}
		seen[key] = true
	}
	return errors.Join(errs...)
}

// CheckMetrics verifies a probe's metrics against its metadata: names,
// descriptions, units, kinds, value types, attributes, their types and enumerated
// values; that no series occurs twice; that timestamps are there and in order; and
// that a histogram's buckets add up to its count. It is for tests. The error joins
// all that is wrong.
func CheckMetrics(meta metadata.Metadata, metrics pmetric.Metrics) error {
	var errs []error
	for _, rm := range metrics.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			seen := map[string]bool{}
			for _, metric := range sm.Metrics().All() {
				if seen[metric.Name()] {
					errs = append(errs, fmt.Errorf("metric %s: twice in one scope", metric.Name()))
				}
				seen[metric.Name()] = true
				if err := checkMetric(meta, metric); err != nil {
					errs = append(errs, fmt.Errorf("metric %s: %w", metric.Name(), err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// declared finds a metric by its name, or by one that it has in some scope.
func declared(meta metadata.Metadata, name string) (metadata.Metric, bool) {
	if decl, ok := meta.Metrics[name]; ok {
		return decl, true
	}
	for _, decl := range meta.Metrics {
		for _, other := range decl.ScopeNames {
			if other == name {
				return decl, true
			}
		}
	}
	return metadata.Metric{}, false
}

func checkMetric(meta metadata.Metadata, metric pmetric.Metric) error {
	decl, ok := declared(meta, metric.Name())
	if !ok {
		return errors.New("not declared")
	}
	var errs []error
	if metric.Unit() != decl.Unit || metric.Description() != decl.Description {
		errs = append(errs, fmt.Errorf("unit %q and description %q, metadata says %q and %q", metric.Unit(), metric.Description(), decl.Unit, decl.Description))
	}
	if !kindMatches(decl, metric) {
		return errors.Join(append(errs, fmt.Errorf("kind, monotonicity or temporality of a %s, metadata says otherwise", metric.Type()))...)
	}
	points := pointsOf(metric)
	if len(points) == 0 {
		errs = append(errs, errors.New("no points"))
	}
	seen := map[string]bool{}
	for i, p := range points {
		if err := p.check(meta, decl); err != nil {
			errs = append(errs, fmt.Errorf("point %d: %w", i, err))
		}
		// Printing sorts the keys.
		key := fmt.Sprintf("%#v", p.attributes.AsRaw())
		if seen[key] {
			errs = append(errs, fmt.Errorf("point %d: the same attributes as another, %s", i, key))
		}
		seen[key] = true
	}
	return errors.Join(errs...)
}

func kindMatches(decl metadata.Metric, metric pmetric.Metric) bool {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		sum := metric.Sum()
		return decl.Sum != nil && sum.IsMonotonic() == decl.Sum.Monotonic &&
			sum.AggregationTemporality() == pmetric.AggregationTemporalityCumulative
	case pmetric.MetricTypeGauge:
		return decl.Gauge != nil
	case pmetric.MetricTypeHistogram:
		return decl.Histogram != nil && metric.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityCumulative
	case pmetric.MetricTypeExponentialHistogram:
		return decl.Histogram != nil && metric.ExponentialHistogram().AggregationTemporality() == pmetric.AggregationTemporalityCumulative
	}
	return false
}

// point is what the four kinds of data points have in common.
type point struct {
	attributes pcommon.Map
	start, end pcommon.Timestamp
	gauge      bool
	valueType  string // of numbers only
	count      uint64 // of histograms only
	buckets    uint64 // sum of the bucket counts
}

func (p point) check(meta metadata.Metadata, decl metadata.Metric) error {
	var errs []error
	if p.end == 0 || (!p.gauge && (p.start == 0 || p.start > p.end)) {
		errs = append(errs, fmt.Errorf("start %d and timestamp %d: missing or out of order", p.start, p.end))
	}
	if p.count != p.buckets {
		errs = append(errs, fmt.Errorf("count %d, but buckets add up to %d", p.count, p.buckets))
	}
	if want := valueType(decl); p.valueType != "" && p.valueType != want {
		errs = append(errs, fmt.Errorf("value type %s, metadata says %s", p.valueType, want))
	}
	if overflow, ok := p.attributes.Get(overflowKey); ok {
		if !overflow.Bool() || p.attributes.Len() != 1 {
			errs = append(errs, fmt.Errorf("%s with value %s among %d attributes", overflowKey, overflow.AsString(), p.attributes.Len()))
		}
	} else {
		errs = append(errs, checkAttributes(meta, decl.Attributes, p.attributes))
	}
	return errors.Join(errs...)
}

// valueType returns the value type of a sum or gauge.
func valueType(decl metadata.Metric) string {
	switch {
	case decl.Sum != nil:
		return decl.Sum.ValueType
	case decl.Gauge != nil:
		return decl.Gauge.ValueType
	}
	return ""
}

func pointsOf(metric pmetric.Metric) []point {
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		return numbers(metric.Sum().DataPoints(), false)
	case pmetric.MetricTypeGauge:
		return numbers(metric.Gauge().DataPoints(), true)
	case pmetric.MetricTypeHistogram:
		var points []point
		for _, p := range metric.Histogram().DataPoints().All() {
			points = append(points, point{
				attributes: p.Attributes(), start: p.StartTimestamp(), end: p.Timestamp(),
				count: p.Count(), buckets: total(p.BucketCounts()),
			})
		}
		return points
	case pmetric.MetricTypeExponentialHistogram:
		var points []point
		for _, p := range metric.ExponentialHistogram().DataPoints().All() {
			points = append(points, point{
				attributes: p.Attributes(), start: p.StartTimestamp(), end: p.Timestamp(),
				count: p.Count(), buckets: p.ZeroCount() + total(p.Positive().BucketCounts()) + total(p.Negative().BucketCounts()),
			})
		}
		return points
	}
	return nil
}

func numbers(slice pmetric.NumberDataPointSlice, gauge bool) []point {
	points := make([]point, 0, slice.Len())
	for _, p := range slice.All() {
		valueType := "int"
		if p.ValueType() == pmetric.NumberDataPointValueTypeDouble {
			valueType = "double"
		}
		points = append(points, point{
			attributes: p.Attributes(), start: p.StartTimestamp(), end: p.Timestamp(),
			gauge: gauge, valueType: valueType,
		})
	}
	return points
}

func total(counts pcommon.UInt64Slice) uint64 {
	n := uint64(0)
	for _, count := range counts.All() {
		n += count
	}
	return n
}
