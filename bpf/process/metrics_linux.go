package process

import (
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/table"
)

type countTable = table.Table[bpfCountKey, uint64, *otlp.Point]

func newCountTable(counts *ebpf.Map) (*countTable, error) {
	for kind := bpfCountKindCOUNT_PROCESS; kind <= bpfCountKindCOUNT_OOM; kind++ {
		err := load.InsertOverflow(counts, bpfCountKey{Scope: load.OverflowScope, Kind: kind})
		if err != nil {
			return nil, err
		}
	}
	return table.New[bpfCountKey, uint64, *otlp.Point](counts, func(sum, cpu *uint64) { *sum += *cpu })
}

// Collect implements probe.Collector.
func (p *process) Collect(m *otlp.Metrics) error {
	// Of what the kernel skipped nothing but the number is known. The exit program
	// runs for every thread, so its skipped runs are no number of processes.
	overflow(m, "linux.process.exec", &p.skippedExecs, probe.SkippedRuns(p.exec))
	overflow(m, "linux.process.created", &p.skippedForks, probe.SkippedRuns(p.fork))
	scope := func(key bpfCountKey) uint64 { return key.Scope }
	return p.table.CollectOwned(p.env.Identity, scope, func(key bpfCountKey, sum *uint64, entry *table.Entry[uint64, *otlp.Point]) {
		if entry.State == nil || !entry.State.Live() {
			entry.State = point(m, key, entry.Owner)
		}
		entry.State.Add(*sum - entry.Last)
	})
}

// overflow adds what a count has grown by to a counter's overflow series.
func overflow(m *otlp.Metrics, name string, last *uint64, now uint64) {
	if now > *last {
		m.Counter(name).Overflow().Add(now - *last)
		*last = now
	}
}

// point is the series that a kernel key counts for.
func point(m *otlp.Metrics, key bpfCountKey, owner *otlp.Resource) *otlp.Point {
	counter := m.Counter(counterOf(key.Kind))
	if key.Scope == load.OverflowScope {
		return counter.Overflow()
	}
	return counter.At(owner, attributesOf(key)...)
}

func counterOf(kind bpfCountKind) string {
	switch kind {
	case bpfCountKindCOUNT_PROCESS, bpfCountKindCOUNT_THREAD:
		return "linux.process.created"
	case bpfCountKindCOUNT_EXEC:
		return "linux.process.exec"
	case bpfCountKindCOUNT_EXIT:
		return "linux.process.exit"
	case bpfCountKindCOUNT_SIGNAL, bpfCountKindCOUNT_FATAL:
		return "linux.signal.count"
	default:
		return "linux.memory.oom_kills"
	}
}

func attributesOf(key bpfCountKey) []otlp.Attr {
	switch key.Kind {
	case bpfCountKindCOUNT_PROCESS:
		return []otlp.Attr{otlp.String("linux.task.type", "process")}
	case bpfCountKindCOUNT_THREAD:
		return []otlp.Attr{otlp.String("linux.task.type", "thread")}
	case bpfCountKindCOUNT_EXIT:
		if failure := errorType(unix.WaitStatus(key.Code)); failure != "" {
			return []otlp.Attr{otlp.String("error.type", failure)}
		}
	case bpfCountKindCOUNT_SIGNAL:
		return signalAttributes(key.Code, "sent")
	case bpfCountKindCOUNT_FATAL:
		return signalAttributes(key.Code, "fatal")
	}
	return nil
}

func signalAttributes(signal uint32, outcome string) []otlp.Attr {
	return []otlp.Attr{
		otlp.String("linux.signal.name", signalName(signal)),
		otlp.String("linux.signal.outcome", outcome),
	}
}

// errorType is the error.type of a process's end: the signal that killed it, or
// the exit code unless it is 0.
func errorType(status unix.WaitStatus) string {
	switch {
	case status.Signaled():
		return signalName(uint32(status.Signal()))
	case status.ExitStatus() != 0:
		return strconv.Itoa(status.ExitStatus())
	}
	return ""
}

// sigRTMin is the first real-time signal as the kernel numbers them; C libraries
// keep the first two or three for themselves and call a later one SIGRTMIN.
const sigRTMin = 32

// signalName is the signal's name: SIGTERM, or SIGRTMIN+2 in the kernel's count.
func signalName(signal uint32) string {
	if name := unix.SignalName(unix.Signal(signal)); name != "" {
		return name
	}
	if signal >= sigRTMin {
		return "SIGRTMIN+" + strconv.Itoa(int(signal-sigRTMin))
	}
	return strconv.Itoa(int(signal))
}
