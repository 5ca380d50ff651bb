//go:build linux

// Package engine starts, runs and stops probes: it loads them with what they share,
// collects their metrics on a timer, hands their records on, and reports how they
// are doing.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.uber.org/zap"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
)

// Settings are what the engine needs from the receiver. Metrics and Logs may be
// nil: then nobody consumes that signal.
type Settings struct {
	Logger  *zap.Logger
	Config  *config.Config
	Version string
	Metrics consumer.Metrics
	Logs    consumer.Logs
	// Observe is told how many items the consumers took or refused.
	Observe Observer
	// Status is told about changes of the component's health; it may be nil. It is
	// told nothing when the start goes well, which the Collector says itself, nor
	// after the shutdown has begun.
	Status func(*StatusEvent)
	// Retry bounds how long a consumer that refuses for now is asked again; each
	// zero is the default.
	Retry Retry
}

// Observer counts what is handed on; receiverhelper.ObsReport has these methods.
type Observer interface {
	StartMetricsOp(context.Context) context.Context
	EndMetricsOp(ctx context.Context, format string, points int, err error)
	StartLogsOp(context.Context) context.Context
	EndLogsOp(ctx context.Context, format string, records int, err error)
}

// StatusEvent is a change of health: Err is nil when all is well again.
type StatusEvent struct {
	Err error
	// Permanent tells that only a restart can mend it.
	Permanent bool
}

// Engine runs the probes of one receiver. Start, Run and Shutdown may each be
// called once, in that order; a new Engine starts anew.
type Engine struct {
	settings Settings
	logger   *zap.Logger
	clock    *kernel.Clock
	loader   *load.Loader
	identity *enrich.Identity
	// prepare is prepareKernel, or what a test needs in its place.
	prepare func(context.Context) error

	// runCtx ends when the probes shall stop, retryCtx when nothing that was refused
	// is offered again, deliverCtx when what the probes left must have been
	// delivered. None descends from Start's context.
	runCtx, retryCtx, deliverCtx    context.Context
	stopRun, stopRetry, stopDeliver context.CancelFunc
	streams, collecting             sync.WaitGroup
	cutShort                        atomic.Bool // something was refused because deliverCtx ended

	mu     sync.Mutex // guards what follows against telemetry callbacks
	probes []*runner
	stats  io.Closer // keeps the kernel's statistics switched on; nil if they are off
	final  []Observation

	// kernelMu is held while probes are read, and while they are closed.
	kernelMu sync.Mutex
	status   *statusReporter
}

// New returns an engine. It touches no kernel state.
func New(settings Settings) *Engine {
	settings.Retry = settings.Retry.withDefaults()
	e := &Engine{settings: settings, logger: settings.Logger, status: newStatusReporter(settings.Status)}
	e.prepare = e.prepareKernel
	e.runCtx, e.stopRun = context.WithCancel(context.Background())
	e.retryCtx, e.stopRetry = context.WithCancel(context.Background())
	e.deliverCtx, e.stopDeliver = context.WithCancel(context.Background())
	return e
}

// Start starts the probes; what they say waits in the kernel until Run. With
// error_mode ignore a probe that cannot start is reported and the others run; with
// propagate the first error is returned and everything that was started is
// released. The context limits the start only.
func (e *Engine) Start(ctx context.Context) error {
	err := e.start(ctx)
	if err != nil {
		err = errors.Join(err, e.release())
	}
	return err
}

func (e *Engine) propagates() bool { return e.settings.Config.ErrorMode == "propagate" }

func (e *Engine) start(ctx context.Context) error {
	if err := e.prepare(ctx); err != nil {
		err = fmt.Errorf("cannot observe this kernel: %w", err)
		if e.propagates() {
			return err
		}
		e.logger.Error("No probe runs", zap.Error(err))
		e.status.permanent(err)
		for _, p := range e.settings.Config.Probes() {
			e.add(&runner{name: p.Type.Metadata.Type, report: &probe.Report{}, err: err})
		}
		return e.release()
	}
	for _, p := range e.settings.Config.Probes() {
		r, err := e.startProbe(ctx, p)
		if err != nil {
			err = fmt.Errorf("probe %s: %w", p.Type.Metadata.Type, err)
			if e.propagates() {
				return err
			}
			e.logger.Error("A probe does not run", zap.String("probe", p.Type.Metadata.Type), zap.Error(err))
		}
		e.add(r)
	}
	e.reportFailures()
	return nil
}

func (e *Engine) add(r *runner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.probes = append(e.probes, r)
}

// prepareKernel checks the kernel and starts what the probes share.
func (e *Engine) prepareKernel(ctx context.Context) error {
	c := e.settings.Config
	if err := kernel.CheckBPF(c.RootPath); err != nil {
		return err
	}
	var err error
	if e.clock, err = kernel.NewClock(); err != nil {
		return err
	}
	self, err := kernel.SelfTGID(c.RootPath)
	if err != nil {
		return fmt.Errorf("%w: mount the host's /proc below root_path (%s)", err, c.RootPath)
	}
	source, _, err := enrich.DetectSource(c.RootPath)
	if err != nil {
		return fmt.Errorf("%w: mount the host's /sys/fs/cgroup below root_path (%s)", err, c.RootPath)
	}
	e.loader = load.New(load.Settings{
		Scope:           scopes()[c.Scope],
		CgroupSource:    source,
		SelfTGID:        self,
		Metrics:         e.settings.Metrics != nil,
		EventsPerSecond: uint32(c.Limits.MaxEventsPerSecond),
		RingBytes:       uint32(c.Limits.RingBuffer),
		HistogramScale:  uint32(c.HistogramScale),
		HistogramBounds: otlp.HistogramBounds(c.HistogramScale),
		MaxSeries:       uint32(c.Limits.MaxSeries),
	})
	if err := e.enableStatistics(); err != nil {
		return err
	}
	e.identity = enrich.New(enrich.Options{
		RootPath:     c.RootPath,
		Scope:        scopes()[c.Scope],
		MaxProcesses: c.Limits.MaxProcesses,
		Clock:        e.clock,
		Logger:       e.logger,
	})
	return e.identity.Start(ctx, e.loader)
}

func scopes() map[string]uint32 {
	return map[string]uint32{"host": enrich.ScopeHost, "container": enrich.ScopeContainer, "process": enrich.ScopeProcess}
}

// reportFailures turns probes that do not run into the component's status.
func (e *Engine) reportFailures() {
	var errs []error
	for _, r := range e.probes {
		if err := r.failure(); err != nil {
			errs = append(errs, fmt.Errorf("probe %s: %w", r.name, err))
		}
	}
	switch err := errors.Join(errs...); {
	case err == nil:
	case !anyRuns(e.probes):
		e.status.permanent(err)
	default:
		e.status.recoverable("probes", err)
	}
}

func anyRuns(probes []*runner) bool {
	return slices.ContainsFunc(probes, func(r *runner) bool {
		state := r.state()
		return state == stateRunning || state == stateDegraded
	})
}

// Run begins to collect and to hand on what the probes have seen since Start. The
// consumers must be ready for it.
func (e *Engine) Run() {
	for _, r := range e.probes {
		if r.streamer != nil {
			e.streams.Go(func() { e.stream(r) })
		}
	}
	if e.settings.Metrics != nil && len(e.probes) > 0 {
		e.collecting.Go(e.collectLoop)
	}
}

// stream runs a streaming probe until the engine stops.
func (e *Engine) stream(r *runner) {
	err := r.streamer.Run(e.runCtx, r.logs)
	if err == nil {
		return
	}
	r.fail(err)
	err = fmt.Errorf("probe %s stopped: %w", r.name, err)
	e.logger.Error("A probe stopped", zap.String("probe", r.name), zap.Error(err))
	e.mu.Lock()
	probes := e.probes
	e.mu.Unlock()
	if anyRuns(probes) {
		e.status.recoverable("probe "+r.name, err)
	} else {
		e.status.permanent(err)
	}
}

// errCutShort is what Shutdown returns when its context ended first.
var errCutShort = errors.New("not all that was left could be handed on: otelcol_receiver_ebpf_events_lost and the log say how much")

// Shutdown stops the probes, collects once more, delivers what is left and
// releases everything. It returns when that is done or when the context ends,
// which is an error then. A little before the context's deadline the consumers'
// context ends, so that those that heed it leave time to count what is lost.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.status.mute()
	e.stopRun()
	defer e.limitDelivery(ctx)()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.streams.Wait()
		e.collecting.Wait()
	}()
	var err error
	select {
	case <-done:
		if e.cutShort.Load() {
			err = fmt.Errorf("shutdown: %w", errCutShort)
		}
	case <-ctx.Done():
		err = fmt.Errorf("shutdown: %w: %w", ctx.Err(), errCutShort)
	}
	e.stopDeliver()
	e.stopRetry()
	return errors.Join(err, e.release())
}

// limitDelivery ends the consumers' context by Shutdown's deadline, and further
// tries of what they refuse after the time that one batch is worth. The caller
// calls what it returns.
func (e *Engine) limitDelivery(ctx context.Context) func() {
	retry := time.AfterFunc(e.settings.Retry.Total, e.stopRetry)
	stop := context.AfterFunc(ctx, e.stopDeliver)
	var early *time.Timer
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		early = time.AfterFunc(left-min(left/4, maxMargin), e.stopDeliver)
	}
	return func() {
		retry.Stop()
		stop()
		if early != nil {
			early.Stop()
		}
	}
}

// maxMargin is enough to drain a ring buffer and count what is in it.
const maxMargin = time.Second

// release frees all kernel state, and keeps the last numbers for the telemetry.
func (e *Engine) release() error {
	e.stopRun()
	e.mu.Lock()
	probes, stats := e.probes, e.stats
	if e.final == nil {
		e.final = e.observe()
	}
	final := e.final
	e.probes, e.stats = nil, nil
	e.mu.Unlock()
	// A collection that reads maps now comes to its end first; it waits for nobody but
	// the kernel.
	e.kernelMu.Lock()
	defer e.kernelMu.Unlock()
	var errs []error
	for i, r := range probes {
		errs = append(errs, r.close())
		e.logStop(final[i])
	}
	if e.identity != nil {
		errs = append(errs, e.identity.Close())
	}
	if stats != nil {
		errs = append(errs, stats.Close())
	}
	return errors.Join(errs...)
}
