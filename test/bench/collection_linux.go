package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/elastic/go-seccomp-bpf/arch"
	"go.uber.org/zap"

	"otelcol-ebpf/bpf/syscalls"
	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
)

// collection is a syscalls probe of scope process and what the engine keeps for it,
// so that the parts of a collection can be measured one by one.
type collection struct {
	identity *enrich.Identity
	probe    probe.Probe
	metrics  *otlp.Metrics
}

// startCollection starts the probe with room for so many series of each metric. It
// counts none but system calls that do not exist, which the workers make.
func startCollection(series int, latency bool) (*collection, error) {
	source, _, err := enrich.DetectSource("/")
	if err != nil {
		return nil, err
	}
	clock, err := kernel.NewClock()
	if err != nil {
		return nil, err
	}
	loader := load.New(load.Settings{
		Scope: enrich.ScopeProcess, CgroupSource: source, SelfTGID: uint32(os.Getpid()), Metrics: true,
		RingBytes: 4 << 20, MaxSeries: uint32(series), HistogramBounds: otlp.HistogramBounds(0),
	})
	c := &collection{identity: enrich.New(enrich.Options{Scope: enrich.ScopeProcess, Clock: clock, Logger: zap.NewNop()})}
	if err := c.identity.Start(context.Background(), loader); err != nil {
		return nil, err
	}
	settings := &syscalls.Config{Exclude: everyCall(), Latency: latency}
	c.probe, err = syscalls.Type().New(settings, probe.Env{
		Logger: zap.NewNop(), Loader: loader, Identity: c.identity, Clock: clock, Report: &probe.Report{},
		Events: func(string) bool { return false },
	})
	if err != nil {
		return nil, errors.Join(err, c.identity.Close())
	}
	if err := c.probe.Start(context.Background()); err != nil {
		return nil, errors.Join(err, c.identity.Close())
	}
	c.metrics = otlp.NewMetrics(syscalls.Type().Metadata, otlp.Options{
		MaxSeries: series, Host: c.identity.Host(), ScopeName: "bench", SeriesExpiry: 5 * time.Minute,
	})
	return c, nil
}

// everyCall names all system calls that any table has.
func everyCall() []string {
	known := map[string]bool{}
	for _, info := range []*arch.Info{arch.X86_64, arch.I386, arch.AARCH64, arch.ARM} {
		for name := range info.SyscallNames {
			known[name] = true
		}
	}
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	return names
}

// collect collects once, as the engine does, and says what each half took.
func (c *collection) collect() (values, error) {
	runtime.GC()
	before, began := mallocs(), time.Now()
	if err := c.probe.(probe.Collector).Collect(c.metrics); err != nil {
		return nil, err
	}
	read := time.Since(began)
	between, began := mallocs(), time.Now()
	batch := otlp.NewBatch(began)
	c.metrics.AppendTo(batch)
	built := time.Since(began)
	after := mallocs()
	return values{
		"read": float64(read.Nanoseconds()), "build": float64(built.Nanoseconds()),
		"read allocs": float64(between - before), "build allocs": float64(after - between),
		"points": float64(batch.Metrics().DataPointCount()), "series": float64(c.metrics.SeriesCount()),
	}, nil
}

func (c *collection) close() error {
	if c.probe == nil {
		return nil
	}
	p := c.probe
	c.probe = nil
	return errors.Join(p.Close(), c.identity.Close())
}
