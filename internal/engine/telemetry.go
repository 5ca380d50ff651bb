//go:build linux

package engine

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"

	"otelcol-ebpf/internal/probe"
)

// bpfStatsRunTime is BPF_STATS_RUN_TIME of enum bpf_stats_type.
const bpfStatsRunTime = 0

// enableStatistics switches the kernel's BPF run-time statistics on, if they are
// asked for. They need CAP_SYS_ADMIN, which the probes do not: without it, and with
// error_mode ignore, all runs but them.
func (e *Engine) enableStatistics() error {
	if !e.settings.Config.ProgramStatistics {
		return nil
	}
	closer, err := ebpf.EnableStats(bpfStatsRunTime)
	switch {
	case err == nil:
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stats = closer
	case e.propagates():
		return fmt.Errorf("program_statistics: %w", err)
	default:
		e.logger.Error("Programs are not measured (program_statistics)", zap.Error(err))
	}
	return nil
}

// Observation is one probe's own telemetry at one moment.
type Observation struct {
	Probe string
	State State
	// Hooks feed the probe.
	Hooks []string
	// Produced is the kernel's own count of events: what reached the ring, and what
	// was lost to a full one, to the rate limit, or because the program was skipped.
	Produced uint64
	// Read is the number of records read from the ring, Lost what was lost, by reason;
	// it is nil for probes without events.
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

// IdentityObservation tells how well processes and containers are known.
type IdentityObservation struct {
	// Unknown is how often the owner of a count or a record could not be named; it
	// is the host's then, or a resource with what its key says.
	Unknown uint64
	// EventsLost is the number of events about cgroups that did not fit into their
	// ring; what they told is found in cgroupfs unless it has gone meanwhile.
	EventsLost uint64
}

// ObserveIdentity is safe to call at any time; it is zero when nothing runs.
func (e *Engine) ObserveIdentity() IdentityObservation {
	e.mu.Lock()
	identity := e.identity
	e.mu.Unlock()
	if identity == nil {
		return IdentityObservation{}
	}
	lost, err := identity.Lost()
	if err != nil {
		lost = 0
	}
	return IdentityObservation{Unknown: identity.Unknown(), EventsLost: lost}
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
	lostSkipped         = "skipped" // the kernel did not run the program
)

// Observe tells how every probe is doing; after Shutdown, how it was at the end. It
// is safe to call at any time.
func (e *Engine) Observe() []Observation {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.final != nil {
		return e.final
	}
	return e.observe()
}

// observe needs e.mu.
func (e *Engine) observe() []Observation {
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
			lostSkipped:         r.report.Skipped(),
		}
		if counts, err := ring.Counts(); err == nil {
			o.Produced = counts.Produced + o.Lost[lostSkipped]
			o.Lost[lostRingFull] = counts.RingFull
			o.Lost[lostRateLimited] = counts.RateLimited
		}
	}
	if skipped := r.report.Skipped(); o.Lost == nil && skipped > 0 {
		o.Lost = map[string]uint64{lostSkipped: skipped}
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
