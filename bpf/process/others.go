//go:build !linux

package process

import "otelcol-ebpf/internal/probe"

func newProbe(probe.Config, probe.Env) (probe.Probe, error) {
	return nil, probe.ErrUnsupported
}
