//go:build linux

package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
)

// State is how a probe is doing.
type State string

// The states that otelcol_receiver_ebpf_probe_state tells.
const (
	stateRunning     State = "running"
	stateDegraded    State = "degraded"    // runs, but a part of it does not
	stateUnsupported State = "unsupported" // this kernel cannot feed it
	stateFailed      State = "failed"
	stateIdle        State = "idle" // nobody consumes the signals that it makes
)

// runner is one probe and what the engine keeps for it.
type runner struct {
	name      string
	probe     probe.Probe
	collector probe.Collector // nil if nobody consumes its metrics
	streamer  probe.Streamer  // nil if nobody needs its records
	report    *probe.Report
	metrics   *otlp.Metrics
	logs      *otlp.Logs

	refused      atomic.Uint64 // records that the consumer refused for good
	delivered    atomic.Uint64 // records that the consumer took
	collectNanos atomic.Int64  // how long the last Collect took
	collectFails atomic.Bool   // the last Collect returned an error

	mu  sync.Mutex
	err error
}

// startProbe makes and starts a probe. The runner is valid on an error, too: then
// it holds the error for the telemetry.
func (e *Engine) startProbe(ctx context.Context, p config.Probe) (*runner, error) {
	meta := p.Type.Metadata
	r := &runner{name: meta.Type, report: &probe.Report{}}
	started := time.Now()
	instance, err := p.Type.New(p.Config, probe.Env{
		Logger:   e.logger.With(zap.String("probe", r.name)),
		Loader:   e.loader,
		Identity: e.identity,
		Clock:    e.clock,
		Report:   r.report,
		Events:   func(name string) bool { return e.wantsEvent(p, name) },
		Track:    e.tracksProcesses(),
		Linger:   e.settings.Config.EventLinger,
	})
	if err != nil {
		r.fail(err)
		return r, err
	}
	r.probe = instance
	if e.settings.Metrics != nil {
		r.collector, _ = instance.(probe.Collector)
	}
	if e.wantsRecords(p) {
		r.streamer, _ = instance.(probe.Streamer)
	}
	if r.collector == nil && r.streamer == nil {
		r.probe = nil
		e.logger.Info("A probe is idle: nobody consumes what it makes", zap.String("probe", r.name))
		return r, nil
	}
	if err := instance.Start(ctx); err != nil {
		r.fail(err)
		r.probe, r.collector, r.streamer = nil, nil, nil
		return r, err
	}
	options := e.otlpOptions(p, started)
	r.metrics = otlp.NewMetrics(meta, options)
	r.logs = otlp.NewLogs(meta, options, e.logSink(r))
	e.logStart(r)
	return r, nil
}

// wantsEvent tells whether an event is enabled and has a consumer.
func (e *Engine) wantsEvent(p config.Probe, name string) bool {
	if e.settings.Logs == nil {
		return false
	}
	if enabled, ok := p.Enabled[name]; ok {
		return enabled
	}
	return p.Type.Metadata.Events[name].Enabled
}

// wantsRecords tells whether anybody needs a probe's records.
func (e *Engine) wantsRecords(p config.Probe) bool {
	for name := range p.Type.Metadata.Events {
		if e.wantsEvent(p, name) {
			return true
		}
	}
	return e.tracksProcesses()
}

// tracksProcesses tells whether series are split by process: then each process
// must be known, however short it lives.
func (e *Engine) tracksProcesses() bool {
	return e.settings.Config.Scope == "process"
}

// otlpOptions are the options of a probe's builders.
func (e *Engine) otlpOptions(p config.Probe, started time.Time) otlp.Options {
	c := e.settings.Config
	enabled := p.Enabled
	if e.settings.Logs == nil {
		// Records that only feed the process cache must not pile up.
		enabled = map[string]bool{}
		for name := range p.Type.Metadata.Events {
			enabled[name] = false
		}
		for name, on := range p.Enabled {
			if _, isEvent := p.Type.Metadata.Events[name]; !isEvent {
				enabled[name] = on
			}
		}
	}
	kind := otlp.Exponential
	if c.Histogram == "explicit" {
		kind = otlp.Explicit
	}
	return otlp.Options{
		Histogram:    kind,
		Scale:        c.HistogramScale,
		MaxSeries:    c.Limits.MaxSeries,
		SeriesExpiry: c.Limits.SeriesExpiry,
		Scope:        c.Scope,
		Host:         e.identity.Host(),
		Start:        started,
		Enabled:      enabled,
		ScopeName:    scopePrefix + p.Type.Metadata.Type,
		ScopeVersion: e.settings.Version,
		SchemaURL:    schemaURL,
	}
}

const (
	scopePrefix = "otelcol-ebpf/bpf/"
	// schemaURL is the version of the semantic conventions that names follow.
	schemaURL = "https://opentelemetry.io/schemas/1.44.0"
)

// logStart writes the one line that says what feeds the probe and what is missing.
func (e *Engine) logStart(r *runner) {
	fields := []zap.Field{zap.String("probe", r.name), zap.Strings("hooks", r.report.Hooks())}
	for _, missing := range r.report.Missing() {
		fields = append(fields, zap.NamedError("missing "+missing.What, missing.Why))
	}
	e.logger.Info("A probe runs", fields...)
}

// logStop writes the one line that says what a probe has seen and lost.
func (e *Engine) logStop(o Observation) {
	if o.State != stateRunning && o.State != stateDegraded {
		return
	}
	fields := []zap.Field{zap.String("probe", o.Probe)}
	if o.Lost != nil {
		fields = append(fields, zap.Uint64("events", o.Produced), zap.Uint64("read", o.Read),
			zap.Uint64("delivered", o.Delivered), zap.Any("lost", o.Lost))
	}
	e.logger.Info("A probe ends", fields...)
}

// fail notes an error that ended the probe.
func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

// failure is the error that ended the probe, or nil.
func (r *runner) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *runner) state() State {
	switch err := r.failure(); {
	case errors.Is(err, probe.ErrUnsupported):
		return stateUnsupported
	case err != nil && r.collector == nil:
		return stateFailed
	case err != nil:
		return stateDegraded // its records have ended, its metrics go on
	case r.probe == nil:
		return stateIdle
	case len(r.report.Missing()) > 0 || r.collectFails.Load():
		return stateDegraded
	}
	return stateRunning
}

func (r *runner) close() error {
	if r.probe == nil {
		return nil
	}
	return r.probe.Close()
}
