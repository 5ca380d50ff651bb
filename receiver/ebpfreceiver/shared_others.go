//go:build !linux

package ebpfreceiver

import (
	"context"
	"fmt"
	"runtime"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
)

// instances refuses to create anything.
type instances struct{}

func newInstances() *instances { return &instances{} }

func (*instances) createMetrics(context.Context, receiver.Settings, component.Config, consumer.Metrics) (receiver.Metrics, error) {
	return nil, errNeedsLinux()
}

func (*instances) createLogs(context.Context, receiver.Settings, component.Config, consumer.Logs) (receiver.Logs, error) {
	return nil, errNeedsLinux()
}

func errNeedsLinux() error {
	return fmt.Errorf("the ebpf receiver needs Linux: it observes the Linux kernel, and this is %s", runtime.GOOS)
}
