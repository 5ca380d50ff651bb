// Package process is the probe for processes: what is executed and how it ends,
// signals, and the OOM killer's victims. process.bpf.c says which hooks it uses.
package process

import (
	_ "embed"
	"fmt"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/probe"
)

//go:embed metadata.yaml
var metadataYAML []byte

// Type returns the probe's type.
func Type() probe.Type {
	return probe.Type{
		Metadata:  metadata.MustParse(metadataYAML),
		NewConfig: func() probe.Config { return &Config{MaxArgsBytes: 4096} },
		New:       newProbe,
	}
}

// Config is what stands under probes.process.
type Config struct {
	// CaptureArgs puts the command line's arguments on process.exec. They may hold
	// secrets.
	CaptureArgs bool `mapstructure:"capture_args"`
	// MaxArgsBytes is how many bytes of them are kept, 1 to 8192.
	MaxArgsBytes uint32 `mapstructure:"max_args_bytes"`
}

const maxArgsBytes = 8192 // ARGS_LIMIT in process.bpf.c

// Validate implements probe.Config.
func (c *Config) Validate() error {
	if c.MaxArgsBytes < 1 || c.MaxArgsBytes > maxArgsBytes {
		return fmt.Errorf("max_args_bytes: %d is out of range, want 1 to %d", c.MaxArgsBytes, maxArgsBytes)
	}
	return nil
}
