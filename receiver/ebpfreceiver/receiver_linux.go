package ebpfreceiver

import (
	"context"
	"errors"
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
// Collector starts and shuts it down once for each signal; only the first of each
// does anything.
type ebpfReceiver struct {
	settings receiver.Settings
	config   *config.Config
	observe  *receiverhelper.ObsReport
	forget   func()

	metrics consumer.Metrics
	logs    consumer.Logs

	mu        sync.Mutex
	started   bool
	stopped   bool
	engine    *engine.Engine
	telemetry *metadata.TelemetryBuilder
}

// newReceiver makes a receiver. It touches no kernel state.
func newReceiver(set receiver.Settings, c *config.Config, forget func()) (*ebpfReceiver, error) {
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

// Start implements component.Component. The context limits the start only.
func (r *ebpfReceiver) Start(ctx context.Context, host component.Host) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started {
		return nil
	}
	r.started = true
	r.engine = engine.New(engine.Settings{
		Logger:  r.settings.Logger,
		Config:  r.config,
		Version: r.settings.BuildInfo.Version,
		Metrics: r.metrics,
		Logs:    r.logs,
		Observe: r.observe,
		Status:  func(event *engine.StatusEvent) { reportStatus(host, event) },
	})
	if err := r.engine.Start(ctx); err != nil {
		return err
	}
	var err error
	r.telemetry, err = registerTelemetry(r.settings.TelemetrySettings, r.engine)
	return err
}

func reportStatus(host component.Host, event *engine.StatusEvent) {
	switch {
	case event.Err == nil:
		componentstatus.ReportStatus(host, componentstatus.NewEvent(componentstatus.StatusOK))
	case event.Permanent:
		componentstatus.ReportStatus(host, componentstatus.NewPermanentErrorEvent(event.Err))
	default:
		componentstatus.ReportStatus(host, componentstatus.NewRecoverableErrorEvent(event.Err))
	}
}

// Shutdown implements component.Component: it may come before Start, and twice.
func (r *ebpfReceiver) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
	if r.stopped || r.engine == nil {
		r.stopped = true
		return nil
	}
	r.stopped = true
	err := r.engine.Shutdown(ctx)
	if r.telemetry != nil {
		r.telemetry.Shutdown()
	}
	return errors.Join(err)
}
