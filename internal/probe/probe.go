// Package probe is the contract between a probe and the receiver: what a probe
// declares, what it may ask of its host, and what it must and may do.
package probe

import (
	"context"
	"errors"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/otlp"
)

// ErrUnsupported is what Start wraps when this kernel cannot feed the probe.
var ErrUnsupported = errors.New("not supported by this kernel")

// Type describes a kind of probe. Each bpf/<name> package exports one.
type Type struct {
	// Metadata is parsed from the metadata.yaml beside the probe.
	Metadata metadata.Metadata
	// NewConfig returns the probe's configuration with its defaults: a pointer to
	// a struct with mapstructure tags.
	NewConfig func() Config
	// New returns a probe for a valid configuration. It touches no kernel state.
	New func(Config, Env) (Probe, error)
}

// Config is one probe's part of the configuration.
type Config interface {
	// Validate names the key in its error, relative to the probe's own keys.
	Validate() error
}

// Probe is a running or startable probe. Start is called at most once.
type Probe interface {
	// Start loads and attaches; on an error it has released everything. The
	// context limits the start, not what runs afterwards.
	Start(context.Context) error
	// Close detaches and releases everything. It is idempotent, and may be called
	// whether or not Start was.
	Close() error
}

// Collector is a probe that has kernel state to read each interval.
type Collector interface {
	// Collect adds what has happened since the last call to the metrics. It is
	// called from one goroutine at a time, after Start and before Close.
	Collect(*otlp.Metrics) error
}

// Streamer is a probe that emits records.
type Streamer interface {
	// Run emits records until ctx is done; then it detaches, emits what is left
	// and returns nil. What is left is handed on with the context that logs gives
	// (otlp.Logs.Flush), which outlives ctx by the time a shutdown allows.
	Run(ctx context.Context, logs *otlp.Logs) error
}
