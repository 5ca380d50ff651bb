package otlp

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"otelcol-ebpf/internal/metadata"
)

// batchRecords is how many records a batch of logs takes until it is full: more
// does not lower the cost per record any further.
const batchRecords = 512

// Logs collects the log records of one probe into batches and hands them to a
// sink. It is not safe for concurrent use.
type Logs struct {
	meta    metadata.Metadata
	options Options
	sink    func(context.Context, plog.Logs) error

	batch   plog.Logs
	pending int
	// records is where each resource's records go in batch; last and lastRecords
	// are the entry used last, because records of one process come in a row.
	records     map[*Resource]plog.LogRecordSlice
	last        *Resource
	lastRecords plog.LogRecordSlice
}

// NewLogs returns a Logs without records. The sink owns the batch that it is given.
func NewLogs(meta metadata.Metadata, o Options, sink func(context.Context, plog.Logs) error) *Logs {
	if o.Host == nil {
		o.Host = NewResource()
	}
	return &Logs{
		meta:    meta,
		options: o,
		sink:    sink,
		batch:   plog.NewLogs(),
		records: map[*Resource]plog.LogRecordSlice{},
	}
}

// EventKind appends records of one kind of event.
type EventKind struct {
	logs         *Logs
	name         string
	severity     plog.SeverityNumber
	severityText string
	enabled      bool
}

// Event returns the kind of event of that name. It panics if the metadata does
// not declare it.
func (l *Logs) Event(name string) *EventKind {
	decl, ok := l.meta.Events[name]
	if !ok {
		panic(fmt.Sprintf("otlp: event %s is not in the metadata of %s", name, l.meta.Type))
	}
	number, text := severity(decl.Severity)
	return &EventKind{
		logs:         l,
		name:         name,
		severity:     number,
		severityText: text,
		enabled:      l.options.enabled(name, decl.Enabled),
	}
}

// severity returns the first of the numbers that the log data model gives to a
// name of metadata.Severities, and the name as it is displayed there.
func severity(name string) (plog.SeverityNumber, string) {
	switch name {
	case "trace":
		return plog.SeverityNumberTrace, "TRACE"
	case "debug":
		return plog.SeverityNumberDebug, "DEBUG"
	case "info":
		return plog.SeverityNumberInfo, "INFO"
	case "warn":
		return plog.SeverityNumberWarn, "WARN"
	case "error":
		return plog.SeverityNumberError, "ERROR"
	case "fatal":
		return plog.SeverityNumberFatal, "FATAL"
	}
	return plog.SeverityNumberUnspecified, ""
}

// Enabled tells that records of this kind are wanted. Callers ask first and leave
// out the work; what they append anyway goes nowhere.
func (k *EventKind) Enabled() bool {
	return k.enabled
}

// Append adds a record about a resource, nil being the host, and returns it to be
// given its attributes; attributes is how many there will be, at best. The record
// keeps the strings that it is given: they must not alias memory that is reused.
//
// Append never hands a batch to the sink, so it cannot fail: its caller calls
// Flush when Full says so, and where it runs out of input.
func (k *EventKind) Append(r *Resource, when, observed pcommon.Timestamp, body string, attributes int) Record {
	record := k.place(r)
	record.SetEventName(k.name)
	record.SetSeverityNumber(k.severity)
	record.SetSeverityText(k.severityText)
	record.SetTimestamp(when)
	record.SetObservedTimestamp(observed)
	record.Body().SetStr(body)
	into := record.Attributes()
	into.EnsureCapacity(attributes)
	return Record{record: record, attributes: into}
}

// place returns a new record in the batch, or nowhere for a disabled event.
func (k *EventKind) place(r *Resource) plog.LogRecord {
	if !k.enabled {
		return plog.NewLogRecord()
	}
	l := k.logs
	if r == nil {
		r = l.options.Host
	}
	if r != l.last {
		l.last, l.lastRecords = r, l.recordsOf(r)
	}
	l.pending++
	return l.lastRecords.AppendEmpty()
}

func (l *Logs) recordsOf(r *Resource) plog.LogRecordSlice {
	if records, ok := l.records[r]; ok {
		return records
	}
	rl := l.batch.ResourceLogs().AppendEmpty()
	rl.SetSchemaUrl(l.options.SchemaURL)
	r.Fill(rl.Resource().Attributes())
	sl := rl.ScopeLogs().AppendEmpty()
	sl.SetSchemaUrl(l.options.SchemaURL)
	sl.Scope().SetName(l.options.ScopeName)
	sl.Scope().SetVersion(l.options.ScopeVersion)
	l.records[r] = sl.LogRecords()
	return l.records[r]
}

// Len returns how many records wait for Flush.
func (l *Logs) Len() int {
	return l.pending
}

// Full tells that the batch has its size. A batch may grow beyond it.
func (l *Logs) Full() bool {
	return l.pending >= batchRecords
}

// Flush hands the pending records to the sink, if there are any, and returns the
// sink's error. Whatever the sink does with them, they are not pending any more:
// one that wants to try again does so itself, and one that refuses counts them.
func (l *Logs) Flush(ctx context.Context) error {
	if l.pending == 0 {
		return nil
	}
	batch := l.batch
	l.batch, l.pending = plog.NewLogs(), 0
	l.last, l.lastRecords = nil, plog.LogRecordSlice{}
	clear(l.records)
	return l.sink(ctx, batch)
}

// Record is a log record in a batch. It is valid until the next Flush.
type Record struct {
	record     plog.LogRecord
	attributes pcommon.Map
}

// String sets a string attribute.
func (r Record) String(key, value string) { r.attributes.PutStr(key, value) }

// Int sets an integer attribute.
func (r Record) Int(key string, value int64) { r.attributes.PutInt(key, value) }

// Double sets a floating-point attribute.
func (r Record) Double(key string, value float64) { r.attributes.PutDouble(key, value) }

// Bool sets a boolean attribute.
func (r Record) Bool(key string, value bool) { r.attributes.PutBool(key, value) }

// Strings sets an attribute that is a list of strings.
func (r Record) Strings(key string, values []string) {
	slice := r.attributes.PutEmptySlice(key)
	slice.EnsureCapacity(len(values))
	for _, value := range values {
		slice.AppendEmpty().SetStr(value)
	}
}
