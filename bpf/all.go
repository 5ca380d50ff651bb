// Package bpf lists the probes. Each is a folder beside this file; README.md says
// how to write one.
package bpf

import (
	"otelcol-ebpf/bpf/process"
	"otelcol-ebpf/bpf/scheduler"
	"otelcol-ebpf/bpf/syscalls"
	"otelcol-ebpf/internal/probe"
)

// All returns every kind of probe, in the order in which they start.
func All() []probe.Type {
	return []probe.Type{
		process.Type(),
		scheduler.Type(),
		syscalls.Type(),
	}
}
