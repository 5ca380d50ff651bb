package ebpfreceiver

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"go.opentelemetry.io/collector/component/componenttest"

	"otelcol-ebpf/config"
)

// unprivileged is a worker's step: without any privilege it validates, creates, and
// starts, which must say what is missing.
func unprivileged(mode string) (string, error) {
	const nobody = 65534
	if err := syscall.Setuid(nobody); err != nil && !errors.Is(err, syscall.EPERM) {
		return "", err
	}
	out := newSink()
	f := NewFactory()
	c := f.CreateDefaultConfig().(*config.Config)
	c.ErrorMode = mode
	if err := c.Validate(); err != nil {
		return "", err
	}
	ctx := context.Background()
	r, err := f.CreateMetrics(ctx, settings("nobody"), c, out)
	if err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	started := r.Start(ctx, componenttest.NewNopHost())
	if err := r.Shutdown(ctx); err != nil {
		return "", fmt.Errorf("shutdown: %w", err)
	}
	return fmt.Sprintf("%q", fmt.Sprint(started)), nil
}
