// Package scheduler is the probe for the scheduler: how long tasks wait for a CPU,
// how long they run and why they stop. scheduler.bpf.c says which hooks it uses.
package scheduler

import (
	_ "embed"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/probe"
)

//go:embed metadata.yaml
var metadataYAML []byte

// Type returns the probe's type.
func Type() probe.Type {
	return probe.Type{
		Metadata:  metadata.MustParse(metadataYAML),
		NewConfig: func() probe.Config { return &Config{} },
		New:       newProbe,
	}
}

// Config is what stands under probes.scheduler.
type Config struct {
	// OnCPU measures how long tasks run without a break.
	OnCPU bool `mapstructure:"on_cpu"`
	// OffCPU measures how long tasks are off the CPU, by reason.
	OffCPU bool `mapstructure:"off_cpu"`
}

// Validate implements probe.Config. Every combination is valid.
func (*Config) Validate() error { return nil }
