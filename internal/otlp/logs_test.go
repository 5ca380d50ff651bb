package otlp

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"go.opentelemetry.io/collector/pdata/plog"
)

// sink keeps the batches that it is given.
type sink struct {
	batches []plog.Logs
	err     error
}

func (s *sink) consume(_ context.Context, logs plog.Logs) error {
	s.batches = append(s.batches, logs)
	return s.err
}

func TestLogsOutput(t *testing.T) {
	meta, out := testMetadata(t), &sink{}
	pod := NewResource(String("container.id", "c1"))
	l := NewLogs(meta, Options{ScopeName: "s", ScopeVersion: "v", SchemaURL: "u"}, out.consume)
	k := l.Event("test.happened")
	for i, r := range []*Resource{pod, nil, pod, pod} {
		record := k.Append(r, stamp(i), stamp(10+i), "it did", 5)
		record.String("color", "red")
		record.Int("size", 2)
		record.Bool("loud", true)
		record.Double("share", 0.5)
		record.Strings("words", []string{"a", "b"})
	}
	if l.Len() != 4 || l.Full() {
		t.Errorf("%d pending, full %v", l.Len(), l.Full())
	}
	if err := l.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(context.Background()); err != nil || len(out.batches) != 1 || l.Len() != 0 {
		t.Fatalf("%d batches, %d pending, error %v", len(out.batches), l.Len(), err)
	}
	logs := out.batches[0]
	if err := Check(meta, logs); err != nil {
		t.Error(err)
	}
	if logs.ResourceLogs().Len() != 2 {
		t.Fatalf("%d resources", logs.ResourceLogs().Len())
	}
	rl := logs.ResourceLogs().At(0)
	sl := rl.ScopeLogs().At(0)
	if sl.LogRecords().Len() != 3 || sl.Scope().Name() != "s" || sl.Scope().Version() != "v" || sl.SchemaUrl() != "u" || rl.SchemaUrl() != "u" {
		t.Errorf("%d records, scope %q %q", sl.LogRecords().Len(), sl.Scope().Name(), sl.Scope().Version())
	}
	record := sl.LogRecords().At(1)
	if record.EventName() != "test.happened" || record.SeverityNumber() != plog.SeverityNumberWarn || record.SeverityText() != "WARN" ||
		record.Timestamp() != stamp(2) || record.ObservedTimestamp() != stamp(12) || record.Body().Str() != "it did" {
		t.Errorf("event %q, severity %v %q, body %q", record.EventName(), record.SeverityNumber(), record.SeverityText(), record.Body().Str())
	}
	want := map[string]any{"color": "red", "size": int64(2), "loud": true, "share": 0.5, "words": []any{"a", "b"}}
	if got := record.Attributes().AsRaw(); !reflect.DeepEqual(got, want) {
		t.Errorf("attributes %v, want %v", got, want)
	}
}

// TestFlushError: the sink's error comes back, records are neither lost before
// nor handed out twice, and the next batch is a new one.
func TestFlushError(t *testing.T) {
	refused := errors.New("refused")
	out := &sink{err: refused}
	l := NewLogs(testMetadata(t), Options{}, out.consume)
	k := l.Event("test.happened")
	for range batchRecords + 8 { // a batch may grow beyond its size
		k.Append(nil, 1, 1, "", 0)
	}
	if !l.Full() {
		t.Error("not full")
	}
	if err := l.Flush(context.Background()); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	k.Append(nil, 1, 1, "", 0)
	_ = l.Flush(context.Background())
	if len(out.batches) != 2 || out.batches[0].LogRecordCount() != batchRecords+8 || out.batches[1].LogRecordCount() != 1 {
		t.Errorf("%d batches", len(out.batches))
	}
}

func TestDisabledEvent(t *testing.T) {
	out := &sink{}
	l := NewLogs(testMetadata(t), Options{Enabled: map[string]bool{"test.happened": false}}, out.consume)
	for _, name := range []string{"test.happened", "test.quiet"} {
		k := l.Event(name)
		if k.Enabled() {
			t.Errorf("%s is enabled", name)
		}
		k.Append(nil, 1, 1, "", 1).String("color", "red")
	}
	if err := l.Flush(context.Background()); err != nil || l.Len() != 0 || len(out.batches) != 0 {
		t.Errorf("%d pending, %d batches, error %v", l.Len(), len(out.batches), err)
	}
	if !NewLogs(testMetadata(t), Options{Enabled: map[string]bool{"test.quiet": true}}, nil).Event("test.quiet").Enabled() {
		t.Error("override is not followed")
	}
}

func TestSeverities(t *testing.T) {
	for name, want := range map[string]plog.SeverityNumber{
		"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21, "": 0,
	} {
		if number, text := severity(name); number != want || (text == "") != (name == "") {
			t.Errorf("severity(%q) = %d, %q", name, number, text)
		}
	}
}
