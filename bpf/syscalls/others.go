//go:build !linux

package syscalls

import "otelcol-ebpf/internal/probe"

func newProbe(probe.Config, probe.Env) (probe.Probe, error) {
	return nil, probe.ErrUnsupported
}
