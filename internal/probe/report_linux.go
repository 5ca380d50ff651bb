package probe

import (
	"sync"

	"github.com/cilium/ebpf"

	"otelcol-ebpf/internal/ring"
)

// Report is what a running probe says of itself; the receiver turns it into its
// own telemetry. It is safe for concurrent use. The zero value is ready.
type Report struct {
	mu       sync.Mutex
	hooks    []string
	missing  []Missing
	ring     *ring.Reader
	tables   map[string]Sized
	programs map[string]*ebpf.Program
	sending  []*ebpf.Program
}

// Missing is a part of a probe that this kernel cannot feed.
type Missing struct {
	// What names the hook or the part, as metadata.yaml does.
	What string
	// Why is the reason.
	Why error
}

// Sized is a map whose fill level is worth watching. It is safe for concurrent use.
type Sized interface {
	// Len is the number of entries when it was last read.
	Len() int
	// Cap is the number of entries that fit.
	Cap() int
}

// Hook says that a hook feeds the probe.
func (r *Report) Hook(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks = append(r.hooks, name)
}

// Hooks are the hooks that feed the probe, in the order in which it named them.
func (r *Report) Hooks() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.hooks...)
}

// Miss says that a part of the probe does not run, and why.
func (r *Report) Miss(what string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = append(r.missing, Missing{what, why})
}

// Missing are the parts that do not run.
func (r *Report) Missing() []Missing {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Missing(nil), r.missing...)
}

// SetRing names the reader whose counts are the probe's event counts.
func (r *Report) SetRing(reader *ring.Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring = reader
}

// Ring is the probe's ring reader, or nil.
func (r *Report) Ring() *ring.Reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ring
}

// Table adds a map to watch.
func (r *Report) Table(name string, table Sized) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tables == nil {
		r.tables = map[string]Sized{}
	}
	r.tables[name] = table
}

// EachTable calls visit for every map to watch.
func (r *Report) EachTable(visit func(name string, table Sized)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, table := range r.tables {
		visit(name, table)
	}
}

// Programs names the loaded programs, whose run time the kernel can measure. They
// stay the probe's, which calls Programs(nil) before it closes them.
func (r *Report) Programs(programs map[string]*ebpf.Program) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.programs = programs
}

// EachProgram calls visit for every loaded program; none is closed meanwhile.
func (r *Report) EachProgram(visit func(name string, program *ebpf.Program)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, program := range r.programs {
		visit(name, program)
	}
}

// Sending names the programs that send events, or whose counts nothing else makes
// up for. The kernel may skip a run of theirs (see Skipped).
func (r *Report) Sending(programs ...*ebpf.Program) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sending = programs
}

// Skipped is the number of runs that the kernel skipped of those programs, for each
// of which an event or a count may have been lost. It does so on a CPU where a task
// is preempted in the middle of a tp_btf program, which happens since v7.0, and, for
// classic tracepoints, where it is preempted in the middle of reading a map.
func (r *Report) Skipped() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var skipped uint64
	for _, program := range r.sending {
		skipped += SkippedRuns(program)
	}
	return skipped
}

// SkippedRuns is the number of a program's runs that the kernel skipped; kernels
// before v5.12 do not count them, and do not skip.
func SkippedRuns(program *ebpf.Program) uint64 {
	stats, err := program.Stats()
	if err != nil {
		return 0
	}
	return stats.RecursionMisses
}
