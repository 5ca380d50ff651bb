package ebpfreceiver

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/engine"
)

// instances holds one receiver for each configuration, which the Collector hands
// to the constructors of both signals: so both are fed by one set of programs.
type instances struct {
	mu       sync.Mutex
	byConfig map[*config.Config]*ebpfReceiver
	retry    engine.Retry // shorter in tests; the default otherwise
}

func newInstances() *instances {
	return &instances{byConfig: map[*config.Config]*ebpfReceiver{}}
}

func (i *instances) createMetrics(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics) (receiver.Metrics, error) {
	return i.get(set, cfg, func(r *ebpfReceiver) { r.metrics = next })
}

func (i *instances) createLogs(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
	return i.get(set, cfg, func(r *ebpfReceiver) { r.logs = next })
}

// get returns the configuration's receiver with one more consumer. It forgets
// itself when it is shut down, so that the same configuration can start anew.
func (i *instances) get(set receiver.Settings, cfg component.Config, consume func(*ebpfReceiver)) (*ebpfReceiver, error) {
	r, err := i.find(set, cfg.(*config.Config))
	if err != nil {
		return nil, err
	}
	return r, r.join(consume)
}

func (i *instances) find(set receiver.Settings, c *config.Config) (*ebpfReceiver, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if r, ok := i.byConfig[c]; ok {
		return r, nil
	}
	r, err := newReceiver(set, c, i.forget)
	if err != nil {
		return nil, err
	}
	r.retry = i.retry
	i.byConfig[c] = r
	return r, nil
}

// forget is called by each of a receiver's shutdowns, of which there is one for
// each signal: by the second, the configuration may have another receiver.
func (i *instances) forget(r *ebpfReceiver) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.byConfig[r.config] == r {
		delete(i.byConfig, r.config)
	}
}
