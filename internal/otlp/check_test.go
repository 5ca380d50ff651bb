package otlp

import (
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

func TestCheckFindsBadRecords(t *testing.T) {
	meta := testMetadata(t)
	for want, spoil := range map[string]func(plog.LogRecord){
		"not declared":       func(r plog.LogRecord) { r.SetEventName("test.none") },
		"severity":           func(r plog.LogRecord) { r.SetSeverityNumber(1) },
		"timestamp":          func(r plog.LogRecord) { r.SetTimestamp(0) },
		"number: not":        func(r plog.LogRecord) { r.Attributes().PutInt("number", 1) },
		"color: type Int":    func(r plog.LogRecord) { r.Attributes().PutInt("color", 1) },
		"not in its enum":    func(r plog.LogRecord) { r.Attributes().PutInt("size", 9) },
		"element of type":    func(r plog.LogRecord) { r.Attributes().PutEmptySlice("words").AppendEmpty().SetInt(1) },
		"words: type Double": func(r plog.LogRecord) { r.Attributes().PutDouble("words", 1) },
		"loud: type Bytes":   func(r plog.LogRecord) { r.Attributes().PutEmptyBytes("loud") },
	} {
		out := &sink{}
		l := NewLogs(meta, Options{}, out.consume)
		record := l.Event("test.happened").Append(nil, 1, 1, "", 1)
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := Check(meta, out.batches[0]); err != nil {
			t.Errorf("before: %v", err)
		}
		spoil(record.record)
		if err := Check(meta, out.batches[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestCheckMetricsFindsBadMetrics(t *testing.T) {
	meta := testMetadata(t)
	const counter, level, histogram = 0, 1, 2
	for want, spoil := range map[string]func(pmetric.MetricSlice){
		"not declared":         func(s pmetric.MetricSlice) { s.At(counter).SetName("test.none") },
		"unit":                 func(s pmetric.MetricSlice) { s.At(counter).SetUnit("By") },
		"description":          func(s pmetric.MetricSlice) { s.At(level).SetDescription("") },
		"kind, mono":           func(s pmetric.MetricSlice) { s.At(counter).Sum().SetIsMonotonic(false) },
		"of a Summary":         func(s pmetric.MetricSlice) { s.At(level).SetEmptySummary() },
		"of a Gauge":           func(s pmetric.MetricSlice) { s.At(histogram).SetEmptyGauge() },
		"twice in one scope":   func(s pmetric.MetricSlice) { s.At(counter).CopyTo(s.AppendEmpty()) },
		"no points":            func(s pmetric.MetricSlice) { s.At(level).SetEmptyGauge() },
		"the same attributes":  func(s pmetric.MetricSlice) { p := s.At(counter).Sum().DataPoints(); p.At(0).CopyTo(p.AppendEmpty()) },
		"out of order":         func(s pmetric.MetricSlice) { s.At(counter).Sum().DataPoints().At(0).SetStartTimestamp(stamp(11)) },
		"value type double":    func(s pmetric.MetricSlice) { s.At(counter).Sum().DataPoints().At(0).SetDoubleValue(1) },
		"value type int":       func(s pmetric.MetricSlice) { s.At(level).Gauge().DataPoints().At(0).SetIntValue(1) },
		"count 3, but buckets": func(s pmetric.MetricSlice) { s.At(histogram).ExponentialHistogram().DataPoints().At(0).SetCount(3) },
		"number: type Str":     func(s pmetric.MetricSlice) { s.At(counter).Sum().DataPoints().At(0).Attributes().PutStr("number", "1") },
		"size: not declared":   func(s pmetric.MetricSlice) { s.At(counter).Sum().DataPoints().At(0).Attributes().PutInt("size", 1) },
		overflowKey: func(s pmetric.MetricSlice) {
			s.At(counter).Sum().DataPoints().At(0).Attributes().PutBool(overflowKey, true)
		},
	} {
		m := NewMetrics(meta, Options{Start: at(0)})
		m.Counter("test.calls").At(nil, Int("number", 1)).Add(1)
		m.Gauge("test.level").At(nil).Set(1)
		m.Histogram("test.duration").At(nil).Merge(record(0, 1, 2))
		metrics := collect(t, m, 10)
		spoil(metrics.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics())
		if err := CheckMetrics(meta, metrics); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
