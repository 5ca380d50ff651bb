package syscalls

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/table"
)

func newProbe(config probe.Config, env probe.Env) (probe.Probe, error) {
	return &syscalls{config: *config.(*Config), env: env}, nil
}

type syscalls struct {
	config Config
	env    probe.Env

	collection *load.Collection
	links      []io.Closer
	counts     *countTable
	durations  *durationTable

	// counter is the program that counts, skipped how often the kernel has not run it.
	counter string
	skipped uint64
}

// points are the two series that one key counts for; errors is nil for successes.
type points struct {
	count, errors *otlp.Point
}

type (
	countTable    = table.Table[bpfSyscallKey, uint64, points]
	durationTable = table.Table[bpfDurationKey, bpfHistogram, *otlp.HistogramPoint]
)

// Start implements probe.Probe.
func (s *syscalls) Start(context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	types, err := s.env.Loader.Types()
	if err != nil {
		return err
	}
	if err := s.configure(spec); err != nil {
		return err
	}
	load.TaskStorage(types, spec.Maps[bpfMapStarted], spec.Maps[bpfMapStartedByTid])
	if s.collection, err = s.env.Loader.Load(spec, s.leaveOut()...); err != nil {
		return err
	}
	s.env.Report.Programs(s.collection.Programs)
	if err := s.openTables(); err != nil {
		return err
	}
	return s.attach()
}

// bitmap is a word array of BPF: one bit for each call of the native and of the
// 32-bit table.
type bitmap [2][16]uint64

// bitmapOf marks the calls that want is true for.
func bitmapOf(want func(name string) bool) bitmap {
	var b bitmap
	native, compat := tables(runtime.GOARCH)
	for abi, names := range []map[int]string{native, compat} {
		for number := range len(b[abi]) * 64 {
			name, ok := names[number]
			if !ok {
				name = "" // newer than the table: only a filter by exclusion lets it in
			}
			if want(name) {
				b[abi][number/64] |= 1 << (number % 64)
			}
		}
	}
	return b
}

func (s *syscalls) configure(spec *ebpf.CollectionSpec) error {
	for name, value := range map[string]any{
		bpfVarSyscallFiltered: s.filtered(),
		bpfVarSyscallCounted:  bitmapOf(s.config.counts),
		bpfVarSyscallLatency:  s.config.Latency,
		bpfVarSyscallTimed:    bitmapOf(s.config.times),
	} {
		if err := load.Set(spec, name, value); err != nil {
			return err
		}
	}
	if !s.config.Latency {
		// An unused map still takes memory: leave room for the overflow series only.
		spec.Maps[bpfMapDurations].MaxEntries = 0
	}
	return nil
}

func (s *syscalls) openTables() (err error) {
	counts, durations := s.collection.Maps[bpfMapCounts], s.collection.Maps[bpfMapDurations]
	err = load.InsertOverflow(counts,
		bpfSyscallKey{Scope: load.OverflowScope}, bpfSyscallKey{Scope: load.OverflowScope, Error: 1})
	if err != nil {
		return err
	}
	s.counts, err = table.New[bpfSyscallKey, uint64, points](counts, func(sum, cpu *uint64) { *sum += *cpu })
	if err != nil {
		return err
	}
	s.env.Report.Table(bpfMapCounts, s.counts)
	if !s.config.Latency {
		return nil
	}
	if err := load.InsertOverflow(durations, bpfDurationKey{Scope: load.OverflowScope}); err != nil {
		return err
	}
	s.durations, err = table.New[bpfDurationKey, bpfHistogram, *otlp.HistogramPoint](durations, addHistogram)
	if err != nil {
		return err
	}
	s.env.Report.Table(bpfMapDurations, s.durations)
	return nil
}

func addHistogram(sum, cpu *bpfHistogram) {
	table.HistogramOf(sum).Add(table.HistogramOf(cpu))
}

// leaveOut are the programs that this kernel and configuration have no use for.
func (s *syscalls) leaveOut() []string {
	var names []string
	if !s.config.Latency {
		names = append(names, bpfProgSysEnter, bpfProgRawSysEnter)
	}
	if !load.PreemptibleTracing() {
		names = append(names, bpfProgRawSysExit, bpfProgRawSysEnter, bpfProgRawSchedProcessExit)
	}
	return names
}

func (s *syscalls) attach() error {
	if err := s.attachHooks(); err != nil {
		return err
	}
	if s.filtered() {
		// Otherwise the overflow series makes up for skipped runs.
		s.env.Report.Sending(s.collection.Programs[s.counter])
	}
	return nil
}

func (s *syscalls) attachHooks() error {
	if s.collection.Programs[bpfProgRawSysExit] != nil {
		err := s.attachTracepoints()
		if err == nil {
			return nil
		}
		s.env.Report.Miss("tracepoint/raw_syscalls/sys_exit",
			fmt.Errorf("calls of tasks that share a CPU may count without a name: %w", err))
	}
	s.counter = bpfProgSysExit
	names := []string{bpfProgSchedProcessExit, bpfProgSysExit}
	if s.config.Latency {
		names = append(names, bpfProgSysEnter)
	}
	for _, name := range names {
		l, err := link.AttachTracing(link.TracingOptions{Program: s.collection.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		s.links = append(s.links, l)
		s.env.Report.Hook("tp_btf/" + name)
	}
	return nil
}

// attachTracepoints attaches all classic tracepoints, or none.
func (s *syscalls) attachTracepoints() error {
	points := []load.Tracepoint{
		{Group: "sched", Event: "sched_process_exit", Program: s.collection.Programs[bpfProgRawSchedProcessExit]},
		{Group: "raw_syscalls", Event: "sys_exit", Program: s.collection.Programs[bpfProgRawSysExit]},
	}
	if s.config.Latency {
		points = append(points, load.Tracepoint{
			Group: "raw_syscalls", Event: "sys_enter", Program: s.collection.Programs[bpfProgRawSysEnter],
		})
	}
	links, err := load.AttachTracepoints(points)
	if err != nil {
		return err
	}
	s.counter, s.links = bpfProgRawSysExit, links
	for _, point := range points {
		s.env.Report.Hook(point.Hook())
	}
	return nil
}

// Close implements probe.Probe.
func (s *syscalls) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	s.links = nil
	s.env.Report.Programs(nil)
	s.env.Report.Sending()
	if s.collection != nil {
		s.collection.Close()
	}
	return errors.Join(errs...)
}

// Collect implements probe.Collector.
func (s *syscalls) Collect(m *otlp.Metrics) error {
	if err := s.collectCounts(m); err != nil {
		return err
	}
	if err := s.collectSkipped(m); err != nil {
		return err
	}
	if s.durations == nil {
		return nil
	}
	return s.collectDurations(m)
}

func (s *syscalls) collectCounts(m *otlp.Metrics) error {
	scope := func(key bpfSyscallKey) uint64 { return key.Scope }
	return s.counts.CollectOwned(s.env.Identity, scope, func(key bpfSyscallKey, sum *uint64, entry *table.Entry[uint64, points]) {
		p := &entry.State
		if p.count == nil || !p.count.Live() || p.errors != nil && !p.errors.Live() {
			*p = pointsOf(m, key, entry.Owner)
		}
		p.count.Add(*sum - entry.Last)
		if p.errors != nil {
			p.errors.Add(*sum - entry.Last)
		}
	})
}

// filtered tells that not every call counts: then nobody knows whether a skipped one
// would have.
func (s *syscalls) filtered() bool { return len(s.config.Include)+len(s.config.Exclude) > 0 }

// collectSkipped counts the calls whose program the kernel skipped, of which nothing
// else is known. Kernels before v5.12 do not tell, and do not skip.
func (s *syscalls) collectSkipped(m *otlp.Metrics) error {
	stats, err := s.collection.Programs[s.counter].Stats()
	if err != nil {
		return fmt.Errorf("skipped runs of %s: %w", s.counter, err)
	}
	if skipped := stats.RecursionMisses; skipped != s.skipped && !s.filtered() {
		m.Counter("linux.syscall.count").Overflow().Add(skipped - s.skipped)
		s.skipped = skipped
	}
	return nil
}

func pointsOf(m *otlp.Metrics, key bpfSyscallKey, owner *otlp.Resource) points {
	count, failed := m.Counter("linux.syscall.count"), m.Counter("linux.syscall.errors")
	if key.Scope == load.OverflowScope {
		p := points{count: count.Overflow()}
		if key.Error != 0 {
			p.errors = failed.Overflow()
		}
		return p
	}
	attributes := attributesOf(key.Number, key.Abi)
	p := points{count: count.At(owner, attributes...)}
	if key.Error != 0 {
		p.errors = failed.At(owner, append(attributes, otlp.String("error.type", errorName(key.Error)))...)
	}
	return p
}

func (s *syscalls) collectDurations(m *otlp.Metrics) error {
	duration := m.Histogram("linux.syscall.duration")
	scope := func(key bpfDurationKey) uint64 { return key.Scope }
	return s.durations.CollectOwned(s.env.Identity, scope, func(key bpfDurationKey, sum *bpfHistogram, entry *table.Entry[bpfHistogram, *otlp.HistogramPoint]) {
		if entry.State == nil || !entry.State.Live() {
			if key.Scope == load.OverflowScope {
				entry.State = duration.Overflow()
			} else {
				entry.State = duration.At(entry.Owner, attributesOf(key.Number, key.Abi)...)
			}
		}
		table.HistogramOf(sum).Merge(entry.State, table.HistogramOf(&entry.Last))
	})
}

func attributesOf(number, abi uint16) []otlp.Attr {
	isCompat := bpfAbi(abi) == bpfAbiABI_COMPAT
	attributes := []otlp.Attr{otlp.String("linux.syscall.name", nameOf(int(number), isCompat))}
	if isCompat {
		attributes = append(attributes, otlp.String("linux.syscall.abi", "compat"))
	}
	return attributes
}

// errorName is the symbolic name of an errno. The kernel returns a few codes that
// have none in user space, such as ENOTSUPP (524).
func errorName(errno uint32) string {
	if name := unix.ErrnoName(unix.Errno(errno)); name != "" {
		return name
	}
	return "errno_" + strconv.Itoa(int(errno))
}
