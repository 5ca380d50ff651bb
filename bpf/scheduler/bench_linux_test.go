package scheduler

import (
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/testutil"
)

// BenchmarkSwitch compares what a context switch, with the wake-up before it, costs
// more: two threads on one CPU hand a byte to and fro.
func BenchmarkSwitch(b *testing.B) {
	testutil.RequireBPF(b)
	probe := func(name string, config Config, scope uint32) testutil.Variant {
		env := testutil.Env(b, testutil.EnvOptions{Scope: scope})
		return testutil.Variant{Name: name, Attach: func() (io.Closer, map[string]*ebpf.Program) {
			p, err := newProbe(&config, env)
			if err == nil {
				err = p.Start(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
			return p, p.(*scheduler).collection.Programs
		}}
	}
	var there, back [2]int
	for _, pipe := range []*[2]int{&there, &back} {
		if err := unix.Pipe(pipe[:]); err != nil {
			b.Fatal(err)
		}
	}
	pin := func() {
		runtime.LockOSThread()
		var cpu unix.CPUSet
		cpu.Set(1)
		if err := unix.SchedSetaffinity(0, &cpu); err != nil {
			b.Error(err)
		}
	}
	go func() {
		pin()
		for one := make([]byte, 1); ; {
			if n, err := unix.Read(there[0], one); n != 1 || err != nil {
				return
			}
			_, _ = unix.Write(back[1], one)
		}
	}()
	pin()
	one := make([]byte, 1)
	testutil.Compare(b, 9, []testutil.Variant{
		testutil.Nothing(),
		testutil.EmptyProgram(b, "sched_switch"),
		testutil.HashProgram(b, "sched_switch"),
		probe("host", Config{}, enrich.ScopeHost),
		probe("container", Config{}, enrich.ScopeContainer),
		probe("process", Config{}, enrich.ScopeProcess),
		probe("everything", *everything(), enrich.ScopeContainer),
	}, func() float64 {
		return testutil.PerCall(5000, func() {
			_, _ = unix.Write(there[1], one)
			_, _ = unix.Read(back[0], one)
		}) / 2
	})
	unix.Close(there[1])
	time.Sleep(10 * time.Millisecond)
}
