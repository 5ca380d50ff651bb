//go:build linux

// Package engine starts, runs and stops probes: it loads them with what they share,
// collects their metrics on a timer, hands their records on, and reports how they
// are doing.
package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/consumer"
	"go.uber.org/zap"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
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
	// Status is told about changes of the component's health; it may be nil.
	Status func(*StatusEvent)
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

// Engine runs the probes of one receiver. Start and Shutdown may each be called
// once; a new Engine starts anew.
type Engine struct {
	settings Settings
	logger   *zap.Logger
	clock    *kernel.Clock
	loader   *load.Loader
	identity *enrich.Identity

	// runCtx ends when the probes shall stop, deliverCtx when what they left must
	// have been delivered. Neither descends from Start's context.
	runCtx, deliverCtx   context.Context
	stopRun, stopDeliver context.CancelFunc
	running              sync.WaitGroup

	mu     sync.Mutex // guards probes against telemetry callbacks
	probes []*runner

	collectMu sync.Mutex // one collection at a time
	stats     *statistics
	status    *statusReporter
}

// New returns an engine. It touches no kernel state.
func New(settings Settings) *Engine {
	e := &Engine{settings: settings, logger: settings.Logger, status: newStatusReporter(settings.Status)}
	e.runCtx, e.stopRun = context.WithCancel(context.Background())
	e.deliverCtx, e.stopDeliver = context.WithCancel(context.Background())
	return e
}

// Start starts the probes. With error_mode ignore a probe that cannot start is
// reported and the others run; with propagate the first error is returned and
// everything that was started is released. The context limits the start only.
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
		return nil
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
		e.mu.Lock()
		e.probes = append(e.probes, r)
		e.mu.Unlock()
	}
	e.reportFailures()
	e.run()
	return nil
}

// prepare checks the kernel and starts what the probes share.
func (e *Engine) prepare(ctx context.Context) error {
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
	if c.ProgramStatistics {
		if e.stats, err = enableStatistics(); err != nil {
			return err
		}
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
	running := 0
	for _, r := range e.probes {
		switch err := r.failure(); {
		case err != nil:
			errs = append(errs, fmt.Errorf("probe %s: %w", r.name, err))
		case r.state() == stateRunning:
			running++
		}
	}
	switch err := errors.Join(errs...); {
	case err == nil:
		e.status.ok()
	case running == 0:
		e.status.permanent(err)
	default:
		e.status.recoverable("probes", err)
	}
}

// run starts the background work.
func (e *Engine) run() {
	for _, r := range e.probes {
		if r.streams() {
			e.running.Go(func() { e.stream(r) })
		}
	}
	if e.settings.Metrics != nil {
		e.running.Go(e.collectLoop)
	}
}

// stream runs a streaming probe until the engine stops.
func (e *Engine) stream(r *runner) {
	if err := r.streamer.Run(e.runCtx, r.logs); err != nil {
		r.fail(err)
		e.logger.Error("A probe stopped", zap.String("probe", r.name), zap.Error(err))
		e.status.recoverable("probe "+r.name, fmt.Errorf("probe %s stopped: %w", r.name, err))
	}
}

// Shutdown stops the probes, collects once more, delivers what is left and
// releases everything. It returns when that is done or when the context ends, which
// is its error then; what is left is lost with it. It is idempotent.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.stopRun()
	// The consumers get as long as Shutdown has.
	stop := context.AfterFunc(ctx, e.stopDeliver)
	defer stop()
	done := make(chan struct{})
	go func() {
		e.running.Wait()
		if e.settings.Metrics != nil && len(e.probes) > 0 {
			e.collect(e.deliverCtx, time.Now())
		}
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("shutdown: %w", ctx.Err())
	}
	e.stopDeliver()
	return errors.Join(err, e.release())
}

// release frees all kernel state. A collection that is still under way finds its
// maps closed and ends with an error.
func (e *Engine) release() error {
	e.stopRun()
	e.mu.Lock()
	probes := e.probes
	e.probes = nil
	e.mu.Unlock()
	var errs []error
	for _, r := range probes {
		errs = append(errs, r.close())
	}
	if e.identity != nil {
		errs = append(errs, e.identity.Close())
		e.identity = nil
	}
	if e.stats != nil {
		errs = append(errs, e.stats.Close())
		e.stats = nil
	}
	return errors.Join(errs...)
}
