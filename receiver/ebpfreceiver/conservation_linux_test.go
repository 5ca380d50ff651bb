package ebpfreceiver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"

	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/testutil"
)

// spawners execute in parallel, so that the ring buffer overflows.
const spawners = 4

// inGuest tells that the test runs in the kernel matrix: in an emulated guest, with
// this package's folder and nothing else of the repository.
func inGuest() bool { return os.Getenv("OTELCOL_EBPF_KERNEL_MATRIX") == "1" }

// execs is how many programs a fork bomb executes: in an emulated guest, where one
// takes some ten milliseconds, fewer.
func execs() int {
	if inGuest() {
		return 2_000
	}
	return 50_000
}

// TestConservation: whatever the consumer does, what is delivered and what is
// counted as lost add up to what the kernel counted, which is what the metric says.
func TestConservation(t *testing.T) {
	testutil.RequireBPF(t)
	var (
		calls, others atomic.Int64
		slept         atomic.Bool
	)
	for _, test := range []struct {
		name   string
		part   int // of execs
		limit  int // of events per second
		ring   string
		refuse func(context.Context) error
		lost   string // the reason that must occur
	}{
		{name: "fork bomb", part: 1, ring: "64KiB"},
		{name: "rate limit", part: 10, ring: "64KiB", limit: 10, lost: "rate_limited"},
		{name: "refuses for good", part: 5, ring: "64KiB", lost: "consumer_refused", refuse: func(context.Context) error {
			return consumererror.NewPermanent(errors.New("never"))
		}},
		{name: "refuses some for good", part: 5, ring: "64KiB", lost: "consumer_refused", refuse: func(context.Context) error {
			if others.Add(1)%2 == 1 {
				return consumererror.NewPermanent(errors.New("not this one"))
			}
			return nil
		}},
		{name: "refuses for now", part: 5, ring: "64KiB", refuse: func(context.Context) error {
			if calls.Add(1)%3 != 0 {
				return errors.New("later")
			}
			return nil
		}},
		{name: "slow", part: 5, ring: "4KiB", lost: "ring_full", refuse: func(ctx context.Context) error {
			// Longer than the ring holds out, the first time; the context is the shutdown's.
			pause := 10 * time.Millisecond
			if slept.CompareAndSwap(false, true) {
				pause = time.Second
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			return nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkDescriptors(t)
			n := execs() / test.part / spawners * spawners
			id, path := containerID(t), program(t)
			cgroup := testutil.NewCgroup(t, "docker/"+id)
			u := create(t, NewFactory(), settings("bomb"), newConfig(t, execsOnly+fmt.Sprintf(
				"limits: {ring_buffer: %s, max_events_per_second: %d, series_expiry: 0s}", test.ring, test.limit)), "metrics logs")
			u.out.id, u.out.refuse = id, test.refuse
			var workers []*testutil.Worker
			for range spawners {
				w := testutil.NewWorker(t)
				if err := cgroup.Enter(w.PID); err != nil {
					t.Fatal(err)
				}
				workers = append(workers, w)
			}
			u.start(t)
			began := time.Now()
			for _, w := range workers {
				w.Begin(t, fmt.Sprintf("spawn %d %s", n/spawners, path))
			}
			for _, w := range workers {
				if _, err := w.Wait(); err != nil {
					t.Fatal(err)
				}
			}
			took := time.Since(began)
			u.stop(t)
			t.Logf("%d execs in %s", n, took.Round(time.Millisecond))
			checkConservation(t, u, n, path, test.lost)
			for _, w := range workers {
				w.End() // the cgroup must be empty to go
			}
		})
	}
}

// checkConservation adds everything up, after the shutdown.
func checkConservation(t *testing.T, u unit, spawned int, path, reason string) {
	t.Helper()
	o := u.observation(t, "process")
	t.Logf("produced %d, read %d, delivered %d, lost %v", o.Produced, o.Read, o.Delivered, o.Lost)
	lost := uint64(0)
	for _, n := range o.Lost {
		lost += n
	}
	if o.Delivered+lost != o.Produced {
		t.Errorf("delivered %d + lost %d = %d, produced were %d", o.Delivered, lost, o.Delivered+lost, o.Produced)
	}
	// Since v7.0 the kernel skips a program while another task is preempted in it, and
	// tells how often.
	skipped := o.Lost["skipped"]
	if sum := o.Read + o.Lost["ring_full"] + o.Lost["rate_limited"] + skipped; sum != o.Produced {
		t.Errorf("read + lost in the kernel = %d, produced were %d", sum, o.Produced)
	}
	if uint64(u.out.records) != o.Delivered {
		t.Errorf("the consumer has %d records, delivered were %d", u.out.records, o.Delivered)
	}
	// The kernel's metric is counted elsewhere than its events.
	if total := u.out.latest.Total("linux.process.exec"); total != float64(o.Produced) {
		t.Errorf("linux.process.exec is %v in all, produced were %d", total, o.Produced)
	}
	// And what we did is known from ourselves, whatever else this machine executes.
	if ours := u.out.latest.Total("linux.process.exec", "container.id", u.out.id); ours > float64(spawned) || ours+float64(skipped) < float64(spawned) {
		t.Errorf("linux.process.exec is %v in our container, %d were skipped, we executed %d", ours, skipped, spawned)
	}
	if u.out.inside != u.out.paths[path] || u.out.inside > spawned || uint64(u.out.inside)+lost < uint64(spawned) {
		t.Errorf("%d records of our container, %d of our program, %d lost, we executed %d",
			u.out.inside, u.out.paths[path], lost, spawned)
	}
	if lost == 0 && u.out.inside != spawned {
		t.Errorf("nothing was lost, but %d of %d were delivered", u.out.inside, spawned)
	}
	if o.Lost["decode_error"] != 0 {
		t.Errorf("%d decode errors", o.Lost["decode_error"])
	}
	if reason != "" && o.Lost[reason] == 0 {
		t.Errorf("nothing was lost as %s", reason)
	}
}

// TestCardinality: past max_series, and past what the kernel's own map holds,
// totals stay exact.
func TestCardinality(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	const containers, calls, maxSeries = 60, 100, 2
	u := create(t, NewFactory(), settings("many"), newConfig(t, fmt.Sprintf(`
collection_interval: 100ms
initial_delay: 0s
error_mode: propagate
limits: {max_series: %d, series_expiry: 0s}
probes: {syscalls: {include: [kcmp]}}
`, maxSeries)), "metrics")
	w := testutil.NewWorker(t)
	u.start(t)
	for range containers {
		if err := testutil.NewCgroup(t, "docker/"+containerID(t)).Enter(w.PID); err != nil {
			t.Fatal(err)
		}
		w.Do(t, fmt.Sprintf("compare %d", calls))
	}
	w.End()
	u.stop(t)
	table := u.observation(t, "syscalls").Tables["counts"]
	t.Logf("kernel map: %d of %d entries", table.Entries, table.Capacity)
	if table.Entries < table.Capacity {
		t.Errorf("the kernel's map has room: %d of %d entries", table.Entries, table.Capacity)
	}
	// The kernel may skip the program; with a filter, as here, nothing makes up for it.
	skipped := u.observation(t, "syscalls").Lost["skipped"]
	if skipped > 0 && !load.PreemptibleTracing() {
		t.Errorf("%d runs were skipped", skipped)
	}
	for _, metric := range []string{"linux.syscall.count", "linux.syscall.errors"} {
		if total := u.out.latest.Total(metric); total > containers*calls || total+float64(skipped) < containers*calls {
			t.Errorf("%s is %v in all and %d were skipped, want %d", metric, total, skipped, containers*calls)
		}
		over := u.out.latest.Total(metric, "otel.metric.overflow", true)
		if over == 0 || len(u.out.latest.Of(metric)) != maxSeries+1 {
			t.Errorf("%s: %d series, %v in the overflow", metric, len(u.out.latest.Of(metric)), over)
		}
	}
}
