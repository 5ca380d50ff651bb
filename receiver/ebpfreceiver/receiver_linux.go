package ebpfreceiver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/engine"
	"otelcol-ebpf/receiver/ebpfreceiver/internal/metadata"
)

// ebpfReceiver is one component id's receiver, for metrics, logs or both. The
// Collector starts and shuts it down once for each signal. The first start loads
// the probes, and the last lets them deliver, for only then all consumers run; the
// first shutdown ends it.
type ebpfReceiver struct {
	settings receiver.Settings
	config   *config.Config
	observe  *receiverhelper.ObsReport
	forget   func(*ebpfReceiver)
	retry    engine.Retry
	status   statusHosts

	metrics consumer.Metrics
	logs    consumer.Logs

	mu        sync.Mutex
	signals   int // how often it was created
	starts    int // how often it was started
	stopped   bool
	engine    *engine.Engine
	telemetry *metadata.TelemetryBuilder
}

// newReceiver makes a receiver. It touches no kernel state.
func newReceiver(set receiver.Settings, c *config.Config, forget func(*ebpfReceiver)) (*ebpfReceiver, error) {
	observe, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID:             set.ID,
		Transport:              "kernel",
		ReceiverCreateSettings: set,
	})
	if err != nil {
		return nil, err
	}
	return &ebpfReceiver{settings: set, config: c, observe: observe, forget: forget}, nil
}

// join adds a consumer.
func (r *ebpfReceiver) join(consume func(*ebpfReceiver)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.starts > 0 {
		return fmt.Errorf("receiver %s has been started: it cannot take another consumer", r.settings.ID)
	}
	consume(r)
	r.signals++
	return nil
}

// Start implements component.Component. The context limits the start only.
func (r *ebpfReceiver) Start(ctx context.Context, host component.Host) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return fmt.Errorf("receiver %s has ended: a new one must be created", r.settings.ID)
	}
	r.status.add(host)
	r.starts++
	if r.starts == 1 {
		if err := r.load(ctx); err != nil {
			r.stopped = true
			r.forget(r)
			return err
		}
	}
	if r.starts == r.signals {
		r.engine.Run()
	}
	return nil
}

// load starts the probes and the telemetry about them; on an error nothing is left.
func (r *ebpfReceiver) load(ctx context.Context) error {
	e := engine.New(engine.Settings{
		Logger:  r.settings.Logger,
		Config:  r.config,
		Version: r.settings.BuildInfo.Version,
		Metrics: r.metrics,
		Logs:    r.logs,
		Observe: r.observe,
		Status:  r.status.report,
		Retry:   r.retry,
	})
	if err := e.Start(ctx); err != nil {
		return err
	}
	var err error
	if r.telemetry, err = registerTelemetry(r.settings.TelemetrySettings, e); err != nil {
		return errors.Join(err, e.Shutdown(ctx))
	}
	r.engine = e
	return nil
}

// Shutdown implements component.Component: it may come before Start, and twice.
func (r *ebpfReceiver) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(r)
	if r.stopped || r.engine == nil {
		r.stopped = true
		return nil
	}
	r.stopped = true
	err := r.engine.Shutdown(ctx)
	r.telemetry.Shutdown()
	return err
}

// statusHosts tell the receiver's health to the Collector, for which each signal is
// a component of its own. It is safe for concurrent use.
type statusHosts struct {
	mu    sync.Mutex
	hosts []component.Host
	last  *componentstatus.Event // nil as long as all is well
}

// add adds a signal's host, which is told what it has missed.
func (s *statusHosts) add(host component.Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts = append(s.hosts, host)
	if s.last != nil {
		componentstatus.ReportStatus(host, s.last)
	}
}

func (s *statusHosts) report(event *engine.StatusEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case event.Err == nil:
		s.last = componentstatus.NewEvent(componentstatus.StatusOK)
	case event.Permanent:
		s.last = componentstatus.NewPermanentErrorEvent(event.Err)
	default:
		s.last = componentstatus.NewRecoverableErrorEvent(event.Err)
	}
	for _, host := range s.hosts {
		componentstatus.ReportStatus(host, s.last)
	}
}
