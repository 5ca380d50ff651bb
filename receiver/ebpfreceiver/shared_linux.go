package ebpfreceiver

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"

	"otelcol-ebpf/config"
)

// instances holds one receiver for each configuration, which the Collector hands
// to the constructors of both signals: so both are fed by one set of programs.
type instances struct {
	mu       sync.Mutex
	byConfig map[*config.Config]*ebpfReceiver
}

func newInstances() *instances {
	return &instances{byConfig: map[*config.Config]*ebpfReceiver{}}
}

func (i *instances) createMetrics(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics) (receiver.Metrics, error) {
	r, err := i.get(set, cfg)
	if err != nil {
		return nil, err
	}
	r.metrics = next
	return r, nil
}

func (i *instances) createLogs(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
	r, err := i.get(set, cfg)
	if err != nil {
		return nil, err
	}
	r.logs = next
	return r, nil
}

// get returns the configuration's receiver, which forgets itself when it is shut
// down, so that the same configuration can start anew.
func (i *instances) get(set receiver.Settings, cfg component.Config) (*ebpfReceiver, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := cfg.(*config.Config)
	if r, ok := i.byConfig[c]; ok {
		return r, nil
	}
	r, err := newReceiver(set, c, func() { i.forget(c) })
	if err != nil {
		return nil, err
	}
	i.byConfig[c] = r
	return r, nil
}

func (i *instances) forget(c *config.Config) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.byConfig, c)
}
