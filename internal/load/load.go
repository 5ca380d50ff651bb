// Package load turns the objects that bpf2go generated into programs and maps
// in the kernel: settings written before the load, one copy of the kernel's BTF
// for all, map sizes from the configuration, and verifier errors that a person
// can read.
package load

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"

	"otelcol-ebpf/internal/kernel"
)

// Settings are the constants that bpf/include/settings.h declares, in the
// kernel's terms.
type Settings struct {
	// Scope is SCOPE_HOST (0), SCOPE_CONTAINER (1) or SCOPE_PROCESS (2).
	Scope uint32
	// CgroupSource is an enum cgroup_source value.
	CgroupSource uint32
	// SelfTGID is the receiver's own thread group id in the initial pid namespace.
	SelfTGID uint32
	// Metrics tells that somebody consumes metrics.
	Metrics bool
	// EventsPerSecond is the rate limit of each probe's events; 0 is none.
	EventsPerSecond uint32
	// RingBytes is the size of each probe's ring buffer: a power of two. Less than a
	// page becomes a page.
	RingBytes uint32
	// HistogramScale is 0 to 3; HistogramBounds its table of bounds, as
	// bpf/include/histogram.h describes it.
	HistogramScale  uint32
	HistogramBounds []uint64
	// MaxSeries sizes the per-CPU hashes that hold one entry per series: their
	// max_entries in C counts multiples of it.
	MaxSeries uint32
}

// Loader loads collections. It is safe for concurrent use.
type Loader struct {
	settings Settings
	types    *btf.Cache
	memlock  *sync.Once
}

// New returns a loader that applies the settings to whatever it loads. It
// touches no kernel state.
func New(settings Settings) *Loader {
	return &Loader{settings: settings, types: btf.NewCache(), memlock: &sync.Once{}}
}

// WithRing returns a loader that gives rings another size and shares everything
// else.
func (l *Loader) WithRing(bytes uint32) *Loader {
	other := *l
	other.settings.RingBytes = bytes
	return &other
}

// Settings returns what the loader applies.
func (l *Loader) Settings() Settings {
	return l.settings
}

// Types is the running kernel's BTF, read once for all probes.
func (l *Loader) Types() (*btf.Spec, error) {
	types, err := l.types.Kernel()
	if err != nil {
		return nil, fmt.Errorf("kernel BTF: %w", err)
	}
	return types, nil
}

// Load applies the settings that the spec declares and loads what is left of it
// after the programs in leaveOut are taken away: those are variants for other
// kernels. The collection is the caller's to close; on an error nothing stays
// loaded.
func (l *Loader) Load(spec *ebpf.CollectionSpec, leaveOut ...string) (*Collection, error) {
	for _, name := range leaveOut {
		delete(spec.Programs, name)
	}
	if err := l.apply(spec); err != nil {
		return nil, err
	}
	// Before v5.11 BPF memory counts against RLIMIT_MEMLOCK. Where the limit cannot be
	// raised, the load itself tells whether it was too low.
	l.memlock.Do(func() { _ = rlimit.RemoveMemlock() })
	collection, err := loadCollection(spec, &ebpf.CollectionOptions{Cache: l.types})
	if err != nil {
		return nil, Readable(err)
	}
	return collection, nil
}

func (l *Loader) apply(spec *ebpf.CollectionSpec) error {
	s := l.settings
	for name, value := range map[string]any{
		"setting_scope":             s.Scope,
		"setting_cgroup_source":     s.CgroupSource,
		"setting_self_tgid":         s.SelfTGID,
		"setting_metrics":           s.Metrics,
		"setting_events_per_second": s.EventsPerSecond,
		"setting_histogram_scale":   s.HistogramScale,
	} {
		if err := Set(spec, name, value); err != nil {
			return err
		}
	}
	if variable, ok := spec.Variables["histogram_bounds"]; ok {
		bounds := make([]uint64, variable.Size()/8)
		copy(bounds, s.HistogramBounds)
		if err := Set(spec, "histogram_bounds", bounds); err != nil {
			return err
		}
	}
	for _, m := range spec.Maps {
		l.size(m)
	}
	return nil
}

// Set writes a constant that the spec's programs may declare; one that none of
// them reads is not in the spec, and that is no error.
func Set(spec *ebpf.CollectionSpec, name string, value any) error {
	variable, ok := spec.Variables[name]
	if !ok {
		return nil
	}
	if err := variable.Set(value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// size gives maps the sizes that the settings ask for.
func (l *Loader) size(m *ebpf.MapSpec) {
	switch {
	case m.Type == ebpf.RingBuf && m.Name == "events":
		// Its least size is a page, which arm64 may have of 64 KiB.
		m.MaxEntries = max(l.settings.RingBytes, uint32(os.Getpagesize()))
	case m.Type == ebpf.PerCPUHash:
		m.MaxEntries *= l.settings.MaxSeries
		// Room for the overflow series besides.
		m.MaxEntries += overflowKeys
		l.cutHistogram(m)
	}
}

// cutHistogram shortens values that end in a struct histogram to the slots that
// the scale has. The map then goes without BTF for its value, which describes the
// longest one.
func (l *Loader) cutHistogram(m *ebpf.MapSpec) {
	slots, ok := trailingSlots(m.Value)
	if !ok {
		return
	}
	used := 2 + uint32(64)<<l.settings.HistogramScale
	m.ValueSize -= 4 * (slots - used)
	m.Key, m.Value = nil, nil
}

// trailingSlots is the number of slots of the struct histogram that t is or ends in.
func trailingSlots(t btf.Type) (uint32, bool) {
	for {
		s, ok := btf.UnderlyingType(t).(*btf.Struct)
		if !ok || len(s.Members) == 0 {
			return 0, false
		}
		last := s.Members[len(s.Members)-1].Type
		if s.Name == "histogram" {
			slots, ok := last.(*btf.Array)
			if !ok {
				return 0, false
			}
			return slots.Nelems, true
		}
		t = last
	}
}

// TaskStorage fits the pair of maps in which programs keep what they know of a
// task to the running kernel: task storage since v5.11, before it a hash by tid. The
// one that is not used stays in the spec, because the programs' dead branches
// name it, but takes no memory.
func TaskStorage(types *btf.Spec, storage, byTID *ebpf.MapSpec) {
	if kernel.HasHelper(types, "BPF_FUNC_task_storage_get") {
		byTID.MaxEntries = 1
		return
	}
	storage.Type = ebpf.Hash
	storage.MaxEntries = 1
	storage.Flags = 0
}

// overflowKeys is more than any probe's overflow series.
const overflowKeys = 16

// OverflowScope is the scope in the key of an overflow series: SERIES_OVERFLOW.
const OverflowScope = ^uint64(0)

// InsertOverflow inserts the keys of a map's overflow series, as
// bpf/include/series.h asks; K is the map's key, whose first field, the scope, the
// caller has set to OverflowScope.
func InsertOverflow[K any](m *ebpf.Map, keys ...K) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("number of CPUs: %w", err)
	}
	zero := make([][]byte, cpus)
	for i := range zero {
		zero[i] = make([]byte, m.ValueSize())
	}
	for _, key := range keys {
		if err := m.Update(key, zero, ebpf.UpdateNoExist); err != nil {
			return fmt.Errorf("overflow series of %s: %w", m, err)
		}
	}
	return nil
}

// What an error shows of a verifier log: the last lines, which hold the refused
// instruction and why. Newer kernels (seen in 7.3) explain at length below that;
// then the lines just above the explanation, and its beginning.
const (
	verifierLines       = 12
	verifierExplains    = "Verification failed"
	verifierAbove       = 5
	verifierExplanation = 16
)

// tellingLines are the part of a verifier log that says what is wrong.
func tellingLines(log []string) []string {
	for i := len(log) - 1; i >= 0; i-- {
		if strings.HasPrefix(log[i], verifierExplains) {
			return log[max(0, i-verifierAbove):min(len(log), i+verifierExplanation)]
		}
	}
	return log[max(0, len(log)-verifierLines):]
}

// verifierColumns is how much of one of these lines it shows.
const verifierColumns = 240

// Readable shortens an error of a load for people: of the verifier's log, which
// can be megabytes, the telling lines. The error is *ebpf.VerifierError, as errors.As
// sees it; but it is not fs.ErrPermission, although the kernel's error is EACCES: what
// the verifier refuses no privilege mends.
func Readable(err error) error {
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) || len(verifier.Log) == 0 {
		return err
	}
	log := slices.Clone(tellingLines(verifier.Log))
	for i, line := range log {
		if len(line) > verifierColumns {
			log[i] = line[:verifierColumns] + "..."
		}
	}
	// The program's name stands before the verifier's own text.
	context, _, _ := strings.Cut(err.Error(), ": "+verifier.Cause.Error())
	return &readableError{
		text:  fmt.Sprintf("%s: refused by the kernel's verifier (%v):\n\t%s", context, verifier.Cause, strings.Join(log, "\n\t")),
		cause: err,
	}
}

type readableError struct {
	text  string
	cause error
}

func (e *readableError) Error() string { return e.text }

// Is and As stand in for Unwrap, which could not leave out fs.ErrPermission.
func (e *readableError) Is(target error) bool {
	return target != fs.ErrPermission && errors.Is(e.cause, target)
}

func (e *readableError) As(target any) bool { return errors.As(e.cause, target) }
