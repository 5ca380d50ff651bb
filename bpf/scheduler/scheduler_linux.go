package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/table"
)

func newProbe(config probe.Config, env probe.Env) (probe.Probe, error) {
	return &scheduler{config: *config.(*Config), env: env}, nil
}

type scheduler struct {
	config Config
	env    probe.Env

	collection *load.Collection
	links      []io.Closer
	tasks      *taskTable
	onCPU      *onCPUTable
	offCPU     *offCPUTable
}

// points are the series that one scope counts for.
type points struct {
	voluntary, involuntary, migrations *otlp.Point
	runQueue                           *otlp.HistogramPoint
}

type (
	taskTable   = table.Table[bpfSchedulerKey, bpfSchedulerValue, points]
	onCPUTable  = table.Table[bpfSchedulerKey, bpfHistogram, *otlp.HistogramPoint]
	offCPUTable = table.Table[bpfOffCpuKey, bpfHistogram, *otlp.HistogramPoint]
)

// Start implements probe.Probe.
func (s *scheduler) Start(context.Context) (err error) {
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
	load.TaskStorage(types, spec.Maps[bpfMapTasks], spec.Maps[bpfMapTasksByTid])
	if err := s.configure(spec, types); err != nil {
		return err
	}
	if s.collection, err = s.env.Loader.Load(spec); err != nil {
		return err
	}
	s.env.Report.Programs(s.collection.Programs)
	if err := s.openTables(); err != nil {
		return err
	}
	return s.attach()
}

func (s *scheduler) configure(spec *ebpf.CollectionSpec, types *btf.Spec) error {
	if err := load.Set(spec, bpfVarSchedulerSwitchHasState, switchHasState(types)); err != nil {
		return err
	}
	if err := load.Set(spec, bpfVarSchedulerOnCpu, s.config.OnCPU); err != nil {
		return err
	}
	if err := load.Set(spec, bpfVarSchedulerOffCpu, s.config.OffCPU); err != nil {
		return err
	}
	// An unused map still takes memory: leave room for the overflow series only.
	if !s.config.OnCPU {
		spec.Maps[bpfMapOnCpu].MaxEntries = 0
	}
	if !s.config.OffCPU {
		spec.Maps[bpfMapOffCpu].MaxEntries = 0
	}
	return nil
}

// switchHasState tells whether the kernel's sched_switch has a fourth argument. Its
// prototype has a pointer to the tracepoint's own data in front.
func switchHasState(types *btf.Spec) bool {
	var hook *btf.Typedef
	if err := types.TypeByName("btf_trace_sched_switch", &hook); err != nil {
		return false
	}
	pointer, ok := btf.UnderlyingType(hook).(*btf.Pointer)
	if !ok {
		return false
	}
	function, ok := pointer.Target.(*btf.FuncProto)
	return ok && len(function.Params) > 4
}

func (s *scheduler) openTables() (err error) {
	maps := s.collection.Maps
	overflow := bpfSchedulerKey{Scope: load.OverflowScope}
	if err := load.InsertOverflow(maps[bpfMapScheduler], overflow); err != nil {
		return err
	}
	if s.tasks, err = table.New[bpfSchedulerKey, bpfSchedulerValue, points](maps[bpfMapScheduler], addValue); err != nil {
		return err
	}
	s.env.Report.Table(bpfMapScheduler, s.tasks)
	if s.config.OnCPU {
		if err := load.InsertOverflow(maps[bpfMapOnCpu], overflow); err != nil {
			return err
		}
		s.onCPU, err = table.New[bpfSchedulerKey, bpfHistogram, *otlp.HistogramPoint](maps[bpfMapOnCpu], addHistogram)
		if err != nil {
			return err
		}
		s.env.Report.Table(bpfMapOnCpu, s.onCPU)
	}
	if s.config.OffCPU {
		for reason := range reasons() {
			key := bpfOffCpuKey{Scope: load.OverflowScope, Reason: uint64(reason)}
			if err := load.InsertOverflow(maps[bpfMapOffCpu], key); err != nil {
				return err
			}
		}
		s.offCPU, err = table.New[bpfOffCpuKey, bpfHistogram, *otlp.HistogramPoint](maps[bpfMapOffCpu], addHistogram)
		if err != nil {
			return err
		}
		s.env.Report.Table(bpfMapOffCpu, s.offCPU)
	}
	return nil
}

// reasons are the values of linux.cpu.off_cpu.reason.
func reasons() map[bpfOffCpuReason]string {
	return map[bpfOffCpuReason]string{
		bpfOffCpuReasonOFF_CPU_PREEMPTED:       "preempted",
		bpfOffCpuReasonOFF_CPU_INTERRUPTIBLE:   "interruptible",
		bpfOffCpuReasonOFF_CPU_UNINTERRUPTIBLE: "uninterruptible",
		bpfOffCpuReasonOFF_CPU_IDLE:            "idle",
		bpfOffCpuReasonOFF_CPU_OTHER:           "other",
	}
}

func addValue(sum, cpu *bpfSchedulerValue) {
	sum.Voluntary += cpu.Voluntary
	sum.Involuntary += cpu.Involuntary
	sum.Migrations += cpu.Migrations
	table.HistogramOf(&sum.RunQueue).Add(table.HistogramOf(&cpu.RunQueue))
}

func addHistogram(sum, cpu *bpfHistogram) {
	table.HistogramOf(sum).Add(table.HistogramOf(cpu))
}

// attach attaches the fork hook first and then lets the iterator walk the tasks
// that exist, so that none falls between the two; what counts comes last.
func (s *scheduler) attach() error {
	if err := s.attachTracing(bpfProgSchedProcessFork); err != nil {
		return err
	}
	if err := s.watchExisting(); err != nil {
		return err
	}
	for _, name := range []string{
		bpfProgSchedSwitch, bpfProgSchedWakeup, bpfProgSchedWakeupNew,
	} {
		if err := s.attachTracing(name); err != nil {
			return err
		}
	}
	return nil
}

func (s *scheduler) attachTracing(name string) error {
	l, err := link.AttachTracing(link.TracingOptions{Program: s.collection.Programs[name]})
	if err != nil {
		return fmt.Errorf("attach %s: %w", name, err)
	}
	s.links = append(s.links, l)
	s.env.Report.Hook("tp_btf/" + name)
	return nil
}

// watchExisting runs the task iterator once, to its end.
func (s *scheduler) watchExisting() error {
	iterator, err := link.AttachIter(link.IterOptions{Program: s.collection.Programs[bpfProgWatchExisting]})
	if err != nil {
		return fmt.Errorf("attach the task iterator: %w", err)
	}
	defer iterator.Close()
	walk, err := iterator.Open()
	if err != nil {
		return fmt.Errorf("open the task iterator: %w", err)
	}
	defer walk.Close()
	if _, err := io.Copy(io.Discard, walk); err != nil {
		return fmt.Errorf("run the task iterator: %w", err)
	}
	s.env.Report.Hook("iter/task")
	return nil
}

// Close implements probe.Probe.
func (s *scheduler) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	s.links = nil
	s.env.Report.Programs(nil)
	if s.collection != nil {
		s.collection.Close()
	}
	return errors.Join(errs...)
}

// Collect implements probe.Collector.
func (s *scheduler) Collect(m *otlp.Metrics) error {
	err := s.tasks.CollectOwned(s.env.Identity, scopeOf, func(key bpfSchedulerKey, sum *bpfSchedulerValue, entry *table.Entry[bpfSchedulerValue, points]) {
		p, last := &entry.State, &entry.Last
		if !p.live() {
			*p = pointsOf(m, key.Scope, entry.Owner)
		}
		p.voluntary.Add(sum.Voluntary - last.Voluntary)
		p.involuntary.Add(sum.Involuntary - last.Involuntary)
		p.migrations.Add(sum.Migrations - last.Migrations)
		table.HistogramOf(&sum.RunQueue).Merge(p.runQueue, table.HistogramOf(&last.RunQueue))
	})
	if err != nil {
		return err
	}
	if s.onCPU != nil {
		if err := s.collectOnCPU(m); err != nil {
			return err
		}
	}
	if s.offCPU != nil {
		return s.collectOffCPU(m)
	}
	return nil
}

func scopeOf(key bpfSchedulerKey) uint64 { return key.Scope }

func (p *points) live() bool {
	return p.voluntary != nil && p.voluntary.Live() && p.involuntary.Live() && p.migrations.Live() && p.runQueue.Live()
}

func pointsOf(m *otlp.Metrics, scope uint64, owner *otlp.Resource) points {
	switches, migrations := m.Counter("linux.cpu.context_switches"), m.Counter("linux.cpu.migrations")
	runQueue := m.Histogram("linux.cpu.run_queue.duration")
	if scope == load.OverflowScope {
		return points{switches.Overflow(), switches.Overflow(), migrations.Overflow(), runQueue.Overflow()}
	}
	const kind = "process.context_switch.type"
	return points{
		voluntary:   switches.At(owner, otlp.String(kind, "voluntary")),
		involuntary: switches.At(owner, otlp.String(kind, "involuntary")),
		migrations:  migrations.At(owner),
		runQueue:    runQueue.At(owner),
	}
}

func (s *scheduler) collectOnCPU(m *otlp.Metrics) error {
	duration := m.Histogram("linux.cpu.on_cpu.duration")
	return s.onCPU.CollectOwned(s.env.Identity, scopeOf, func(key bpfSchedulerKey, sum *bpfHistogram, entry *table.Entry[bpfHistogram, *otlp.HistogramPoint]) {
		if entry.State == nil || !entry.State.Live() {
			if key.Scope == load.OverflowScope {
				entry.State = duration.Overflow()
			} else {
				entry.State = duration.At(entry.Owner)
			}
		}
		table.HistogramOf(sum).Merge(entry.State, table.HistogramOf(&entry.Last))
	})
}

func (s *scheduler) collectOffCPU(m *otlp.Metrics) error {
	duration := m.Histogram("linux.cpu.off_cpu.duration")
	scope := func(key bpfOffCpuKey) uint64 { return key.Scope }
	return s.offCPU.CollectOwned(s.env.Identity, scope, func(key bpfOffCpuKey, sum *bpfHistogram, entry *table.Entry[bpfHistogram, *otlp.HistogramPoint]) {
		if entry.State == nil || !entry.State.Live() {
			if key.Scope == load.OverflowScope {
				entry.State = duration.Overflow()
			} else {
				reason := otlp.String("linux.cpu.off_cpu.reason", reasons()[bpfOffCpuReason(key.Reason)])
				entry.State = duration.At(entry.Owner, reason)
			}
		}
		table.HistogramOf(sum).Merge(entry.State, table.HistogramOf(&entry.Last))
	})
}
