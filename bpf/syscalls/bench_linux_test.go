package syscalls

import (
	"io"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/testutil"
)

// BenchmarkGetppid compares what a system call that does nearly nothing costs more.
func BenchmarkGetppid(b *testing.B) {
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
			return p, p.(*syscalls).collection.Programs
		}}
	}
	testutil.Compare(b, 9, []testutil.Variant{
		testutil.Nothing(),
		testutil.EmptyProgram(b, "sys_exit"),
		testutil.HashProgram(b, "sys_exit"),
		probe("host", Config{}, enrich.ScopeHost),
		probe("container", Config{}, enrich.ScopeContainer),
		probe("process", Config{}, enrich.ScopeProcess),
		probe("latency", Config{Latency: true}, enrich.ScopeContainer),
	}, func() float64 {
		return testutil.PerCall(50000, func() { _, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) })
	})
}
