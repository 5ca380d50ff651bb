package probe

import (
	"time"

	"go.uber.org/zap"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
)

// Env is what a probe may ask of its host.
type Env struct {
	Logger   *zap.Logger
	Loader   *load.Loader
	Identity *enrich.Identity
	Clock    *kernel.Clock
	// Report is where the probe says how it is doing.
	Report *Report
	// Events tells whether an event of metadata.yaml is wanted: it is enabled and
	// somebody consumes logs. What is not wanted must not be produced.
	Events func(name string) bool
	// Track asks for the records that keep the process cache (Identity) up to date,
	// whether or not anybody wants to read them.
	Track bool
	// Linger is the longest time that a record may wait in the ring.
	Linger time.Duration
}
