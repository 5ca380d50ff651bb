// Package testutil is what tests of several packages share: what a test may ask of
// the machine, the environment that a probe needs, and checks for leaks.
package testutil

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
)

// RequireBPF skips the test unless tracing programs can be loaded here, and says
// what is missing. With REQUIRE_BPF=1 in the environment, as on CI, that is a
// failure.
func RequireBPF(tb testing.TB) {
	tb.Helper()
	err := kernel.CheckBPF("/")
	if err == nil {
		return
	}
	if os.Getenv("REQUIRE_BPF") == "1" {
		tb.Fatalf("REQUIRE_BPF=1, but: %v", err)
	}
	tb.Skipf("needs BPF: %v", err)
}

// MountTracefs mounts tracefs where the kernel offers it, unless it is mounted.
func MountTracefs(tb testing.TB) string {
	tb.Helper()
	const dir = "/sys/kernel/tracing"
	if _, err := os.Stat(filepath.Join(dir, "events")); err == nil {
		return dir
	}
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		tb.Fatalf("mount tracefs: %v", err)
	}
	return dir
}

// Programs is the number of BPF programs loaded in this kernel, other processes'
// included.
func Programs(tb testing.TB) int {
	tb.Helper()
	n := 0
	for id := ebpf.ProgramID(0); ; n++ {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return n
		}
		if err != nil {
			tb.Fatalf("count programs: %v", err)
		}
		id = next
	}
}

// CheckLeaks fails the test if, after it and its other cleanups, the process holds
// other descriptors than now. Programs, maps and links live as long as their last
// descriptor does, for nothing here is pinned; counting them in the whole kernel
// would count other processes' too.
func CheckLeaks(tb testing.TB) {
	tb.Helper()
	before := descriptors(tb)
	tb.Cleanup(func() {
		var after map[string]int
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if after = descriptors(tb); maps.Equal(before, after) {
				return
			}
		}
		tb.Errorf("leaked descriptors: there were %v, there are %v", before, after)
	})
}

// descriptors counts the process's open descriptors by what they refer to.
func descriptors(tb testing.TB) map[string]int {
	tb.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	counts := map[string]int{}
	for _, entry := range entries {
		// One of them is the folder itself, closed by now.
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			kind, _, _ := strings.Cut(target, "[")
			counts[kind]++
		}
	}
	return counts
}

// EnvOptions say what a test's probe runs with. The zero value is: scope host, no
// events, nothing excluded, 64 KiB rings, 2,000 series.
type EnvOptions struct {
	Scope           uint32
	Scale           int
	RingBytes       uint32
	MaxSeries       uint32
	EventsPerSecond uint32
	// SelfTGID is excluded; 0 excludes nobody, not even the test itself.
	SelfTGID uint32
	Linger   time.Duration
	// Events are the events that are wanted.
	Events []string
	Track  bool
}

// Env is what a probe needs, with the identity of this machine's containers and
// processes running.
func Env(tb testing.TB, o EnvOptions) probe.Env {
	tb.Helper()
	if o.RingBytes == 0 {
		o.RingBytes = 64 << 10
	}
	if o.MaxSeries == 0 {
		o.MaxSeries = 2000
	}
	source, _, err := enrich.DetectSource("/")
	if err != nil {
		tb.Fatal(err)
	}
	clock, err := kernel.NewClock()
	if err != nil {
		tb.Fatal(err)
	}
	loader := load.New(load.Settings{
		Scope: o.Scope, CgroupSource: source, SelfTGID: o.SelfTGID, Metrics: true,
		EventsPerSecond: o.EventsPerSecond, RingBytes: o.RingBytes, MaxSeries: o.MaxSeries,
		HistogramScale: uint32(o.Scale), HistogramBounds: otlp.HistogramBounds(o.Scale),
	})
	logger := zaptest.NewLogger(tb)
	identity := enrich.New(enrich.Options{Scope: o.Scope, Clock: clock, Logger: logger})
	if err := identity.Start(tb.Context(), loader); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := identity.Close(); err != nil {
			tb.Error(err)
		}
	})
	// Tests collect when they have to, not when the last process has been named.
	identity.Final()
	wanted := map[string]bool{}
	for _, name := range o.Events {
		wanted[name] = true
	}
	return probe.Env{
		Logger: logger, Loader: loader, Identity: identity, Clock: clock, Report: &probe.Report{},
		Events: func(name string) bool { return wanted[name] },
		Track:  o.Track, Linger: o.Linger,
	}
}

// Start makes and starts a probe, and closes it when the test ends.
func Start(tb testing.TB, t probe.Type, config probe.Config, env probe.Env) probe.Probe {
	tb.Helper()
	p, err := t.New(config, env)
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.Start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}
