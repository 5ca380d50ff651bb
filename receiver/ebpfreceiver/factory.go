package ebpfreceiver

import (
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/receiver"

	"otelcol-ebpf/bpf"
	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/receiver/ebpfreceiver/internal/metadata"
)

// NewFactory returns the factory of the ebpf receiver. On other systems than
// Linux its configuration can be read and validated; creating it is refused.
func NewFactory() receiver.Factory {
	return newFactory(bpf.All(), newInstances())
}

func newFactory(types []probe.Type, shared *instances) receiver.Factory {
	return receiver.NewFactory(
		metadata.Type,
		func() component.Config { return config.New(types) },
		receiver.WithMetrics(shared.createMetrics, metadata.MetricsStability),
		receiver.WithLogs(shared.createLogs, metadata.LogsStability),
	)
}
