package ebpfreceiver

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pipeline"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/engine"
	probemeta "otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/testutil"
)

const sourceMetadata = `
type: %s
description: A probe for tests.
default: true
requires:
  kernel: "5.10"
  hooks: [{name: none, why: none}]
status: {stability: {beta: [metrics, logs]}}
attributes:
  test_id: {description: Number., type: string}
metrics:
  source.level:
    enabled: true
    description: Level.
    unit: "1"
    gauge: {value_type: int}
    attributes: [test_id]
events:
  source.happened:
    enabled: true
    description: It happened.
    severity: info
    attributes: [test_id]
`

// source is a probe that makes up what it sees, and a generator of it.
type source struct {
	startErr error

	next    atomic.Uint64
	mu      sync.Mutex
	pending []string
	wake    chan struct{}
}

func newSource() *source { return &source{wake: make(chan struct{}, 1)} }

type sourceSettings struct{}

func (*sourceSettings) Validate() error { return nil }

func (s *source) probeType(name string) probe.Type {
	return probe.Type{
		Metadata:  probemeta.MustParse(fmt.Appendf(nil, sourceMetadata, name)),
		NewConfig: func() probe.Config { return &sourceSettings{} },
		New:       func(probe.Config, probe.Env) (probe.Probe, error) { return &sourceProbe{s}, nil },
	}
}

// sourceConfig collects often enough that nobody waits.
func sourceConfig(f receiver.Factory) *config.Config {
	c := f.CreateDefaultConfig().(*config.Config)
	c.InitialDelay, c.CollectionInterval = 0, 200*time.Millisecond
	c.Limits.MaxSeries = 1_000_000
	return c
}

// Start, Stop and Generate are receivertest.Generator's.
func (s *source) Start() {}
func (s *source) Stop()  {}

func (s *source) Generate() []receivertest.UniqueIDAttrVal {
	id := strconv.FormatUint(s.next.Add(1), 10)
	s.mu.Lock()
	s.pending = append(s.pending, id)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return []receivertest.UniqueIDAttrVal{receivertest.UniqueIDAttrVal(id)}
}

func (s *source) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.pending
	s.pending = nil
	return ids
}

// sourceProbe is the probe; a generator has a Start of its own.
type sourceProbe struct{ s *source }

func (p *sourceProbe) Start(context.Context) error { return p.s.startErr }
func (p *sourceProbe) Close() error                { return nil }

func (p *sourceProbe) Collect(m *otlp.Metrics) error {
	for _, id := range p.s.take() {
		m.Gauge("source.level").At(nil, otlp.String("test_id", id)).Set(1)
	}
	return nil
}

func (p *sourceProbe) Run(ctx context.Context, logs *otlp.Logs) error {
	happened := logs.Event("source.happened")
	for {
		select {
		case <-p.s.wake:
		case <-ctx.Done():
			return nil
		}
		for _, id := range p.s.take() {
			now := pcommon.NewTimestampFromTime(time.Now())
			happened.Append(nil, now, now, "it happened", 1).String("test_id", id)
			if logs.Len() >= 20 {
				if err := logs.Flush(ctx); err != nil {
					return err
				}
			}
		}
		if err := logs.Flush(ctx); err != nil {
			return err
		}
	}
}

func TestConsumeContract(t *testing.T) {
	testutil.RequireBPF(t)
	for _, signal := range []pipeline.Signal{pipeline.SignalLogs, pipeline.SignalMetrics} {
		t.Run(signal.String(), func(t *testing.T) {
			s, shared := newSource(), newInstances()
			shared.retry = engine.Retry{First: time.Millisecond, Longest: time.Millisecond}
			f := newFactory([]probe.Type{s.probeType("source")}, shared)
			receivertest.CheckConsumeContract(receivertest.CheckConsumeContractParams{
				T: t, Factory: f, Signal: signal, Config: sourceConfig(f), Generator: s, GenerateCount: 1000,
			})
		})
	}
}
