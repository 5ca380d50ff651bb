//go:build linux

package engine

import (
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"

	"otelcol-ebpf/internal/probe"
)

// statistics keeps the kernel's BPF run-time statistics switched on.
type statistics struct{ io.Closer }

// bpfStatsRunTime is BPF_STATS_RUN_TIME of enum bpf_stats_type.
const bpfStatsRunTime = 0

func enableStatistics() (*statistics, error) {
	closer, err := ebpf.EnableStats(bpfStatsRunTime)
	if err != nil {
		return nil, fmt.Errorf("program_statistics: %w", err)
	}
	return &statistics{closer}, nil
}

// Observation is one probe's own telemetry at one moment.
type Observation struct {
	Probe string
	State State
	// Hooks feed the probe.
	Hooks []string
	// Read is the number of records read from the ring, Lost what was lost, by reason.
	Read uint64
	Lost map[string]uint64
	// Delivered is the number of log records that the consumer took.
	Delivered uint64
	// CollectDuration is how long the last collection took; 0 before the first.
	CollectDuration time.Duration
	// Tables are the fill levels at the last collection.
	Tables map[string]TableObservation
	// Programs are the kernel's statistics since the load; empty unless they are on.
	Programs map[string]ProgramObservation
}

// TableObservation is the fill level of a map.
type TableObservation struct{ Entries, Capacity int }

// ProgramObservation is a program's run-time statistics.
type ProgramObservation struct {
	Time time.Duration
	Runs uint64
}

// The reasons of lost events.
const (
	lostRingFull        = "ring_full"
	lostRateLimited     = "rate_limited"
	lostDecodeError     = "decode_error"
	lostConsumerRefused = "consumer_refused"
)

// Observe tells how every probe is doing. It is safe to call at any time.
func (e *Engine) Observe() []Observation {
	e.mu.Lock()
	defer e.mu.Unlock()
	observations := make([]Observation, 0, len(e.probes))
	for _, r := range e.probes {
		observations = append(observations, r.observe(e.stats != nil))
	}
	return observations
}

func (r *runner) observe(withStatistics bool) Observation {
	o := Observation{
		Probe:           r.name,
		State:           r.state(),
		Hooks:           r.report.Hooks(),
		Delivered:       r.delivered.Load(),
		CollectDuration: time.Duration(r.collectNanos.Load()),
		Tables:          map[string]TableObservation{},
		Programs:        map[string]ProgramObservation{},
	}
	if ring := r.report.Ring(); ring != nil {
		o.Read = ring.Read()
		o.Lost = map[string]uint64{
			lostDecodeError:     ring.DecodeErrors(),
			lostConsumerRefused: r.refused.Load(),
		}
		if counts, err := ring.Counts(); err == nil {
			o.Lost[lostRingFull] = counts.RingFull
			o.Lost[lostRateLimited] = counts.RateLimited
		}
	}
	r.report.EachTable(func(name string, table probe.Sized) {
		o.Tables[name] = TableObservation{table.Len(), table.Cap()}
	})
	if !withStatistics {
		return o
	}
	r.report.EachProgram(func(name string, program *ebpf.Program) {
		if stats, err := program.Stats(); err == nil {
			o.Programs[name] = ProgramObservation{stats.Runtime, stats.RunCount}
		}
	})
	return o
}
