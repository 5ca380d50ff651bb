package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"otelcol-ebpf/internal/event"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/ring"
)

func newProbe(config probe.Config, env probe.Env) (probe.Probe, error) {
	return &process{config: *config.(*Config), env: env, classic: load.PreemptibleTracing()}, nil
}

type process struct {
	config Config
	env    probe.Env
	// classic prefers classic tracepoints for what may not be skipped.
	classic bool

	collection *load.Collection
	reader     *ring.Reader
	table      *countTable
	exec, fork *ebpf.Program
	// skippedExecs and skippedForks are the runs of theirs that the kernel had
	// skipped at the last collection.
	skippedExecs, skippedForks uint64
	strings                    event.Interner

	mu    sync.Mutex // guards links: Run detaches while Close may come
	links []io.Closer
}

// Start implements probe.Probe.
func (p *process) Start(context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	types, err := p.env.Loader.Types()
	if err != nil {
		return err
	}
	variants := chooseVariants(p.classic, func(tracepoint string) int { return kernel.TracepointArgs(types, tracepoint) })
	if err := p.configure(spec, variants); err != nil {
		return err
	}
	if p.collection, err = p.env.Loader.Load(spec, variants.leaveOut...); err != nil {
		return err
	}
	p.env.Report.Programs(p.collection.Programs)
	if p.table, err = newCountTable(p.collection.Maps[bpfMapCounts]); err != nil {
		return err
	}
	p.env.Report.Table(bpfMapCounts, p.table)
	p.reader, err = ring.NewReader(p.collection.Maps[bpfMapEvents], p.collection.Maps[bpfMapEventCounts], p.env.Linger)
	if err != nil {
		return err
	}
	p.env.Report.SetRing(p.reader)
	return p.attach(variants)
}

// variants says which programs suit this kernel.
type variants struct {
	leaveOut           []string
	exitTellsGroup     bool
	classic            bool
	namesVictim        bool
	seesOldCredentials bool
}

// chooseVariants decides by the number of arguments that tracepoints pass here.
func chooseVariants(classic bool, args func(tracepoint string) int) variants {
	v := variants{classic: classic}
	leave := func(programs ...string) { v.leaveOut = append(v.leaveOut, programs...) }
	// 2: (task, group_dead), since v6.16.
	if v.exitTellsGroup = args("sched_process_exit") >= 2; v.exitTellsGroup {
		leave(bpfProgSchedProcessExit)
	} else {
		leave(bpfProgSchedProcessExitGroup)
	}
	// 2: (task, uid); before v6.8 and the stable updates that took it over: (pid).
	if v.namesVictim = args("mark_victim") >= 2; !v.namesVictim {
		leave(bpfProgMarkVictim)
	}
	if v.seesOldCredentials = args("sched_prepare_exec") > 0; !v.seesOldCredentials {
		leave(bpfProgSchedPrepareExec)
	}
	if !classic {
		leave(bpfProgRawSchedProcessExec, bpfProgRawSchedPrepareExec, bpfProgRawSchedProcessExit)
	}
	return v
}

func (p *process) configure(spec *ebpf.CollectionSpec, v variants) error {
	var argsLimit uint32
	if p.config.CaptureArgs {
		argsLimit = p.config.MaxArgsBytes
	}
	for name, value := range map[string]any{
		bpfVarSendExec:           p.sends("process.exec"),
		bpfVarSendExit:           p.sends("process.exit"),
		bpfVarSendOom:            p.env.Events("process.oom_killed"),
		bpfVarSendFork:           p.env.Track,
		bpfVarArgsLimit:          argsLimit,
		bpfVarExitTellsGroup:     v.exitTellsGroup,
		bpfVarSeesOldCredentials: v.seesOldCredentials,
	} {
		if err := load.Set(spec, name, value); err != nil {
			return err
		}
	}
	return nil
}

// sends tells whether the kernel side sends an event of exec or exit: for who reads
// it, or for the process cache.
func (p *process) sends(event string) bool { return p.env.Events(event) || p.env.Track }

// attach attaches what was loaded and reports what this kernel does not have.
func (p *process) attach(v variants) error {
	exit := bpfProgSchedProcessExit
	if v.exitTellsGroup {
		exit = bpfProgSchedProcessExitGroup
	}
	exec := bpfProgSchedProcessExec
	attached := []string{bpfProgSchedProcessFork, bpfProgSignalGenerate}
	if v.namesVictim {
		attached = append(attached, bpfProgMarkVictim)
	} else {
		p.env.Report.Miss("tp_btf/mark_victim", errors.New("this kernel does not tell the victim: no OOM kills"))
	}
	if p.attachTracepoints(v) {
		exec, exit = bpfProgRawSchedProcessExec, bpfProgRawSchedProcessExit
	} else {
		attached = append(attached, exec, exit)
		if v.seesOldCredentials {
			attached = append(attached, bpfProgSchedPrepareExec)
		} else {
			p.env.Report.Miss("tp_btf/sched_prepare_exec", errors.New("not in this kernel: no capabilities gained"))
		}
	}
	for _, name := range attached {
		l, err := link.AttachTracing(link.TracingOptions{Program: p.collection.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		p.keep(l)
		p.env.Report.Hook("tp_btf/" + strings.TrimSuffix(name, "_group"))
	}
	p.noteSending(exec, exit)
	return nil
}

// attachTracepoints attaches exec and exit to classic tracepoints, where that is
// wanted and possible.
func (p *process) attachTracepoints(v variants) bool {
	if !v.classic {
		return false
	}
	points := []load.Tracepoint{
		{Group: "sched", Event: "sched_prepare_exec", Program: p.collection.Programs[bpfProgRawSchedPrepareExec]},
		{Group: "sched", Event: "sched_process_exec", Program: p.collection.Programs[bpfProgRawSchedProcessExec]},
		{Group: "sched", Event: "sched_process_exit", Program: p.collection.Programs[bpfProgRawSchedProcessExit]},
	}
	links, err := load.AttachTracepoints(points)
	if err != nil {
		p.env.Report.Miss("tracepoint/sched", fmt.Errorf("some execs and exits will be skipped: %w", err))
		return false
	}
	p.keep(links...)
	for _, point := range points {
		p.env.Report.Hook(point.Hook())
	}
	return true
}

// keep notes links for detach.
func (p *process) keep(links ...io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = append(p.links, links...)
}

// noteSending notes the programs whose skipped runs are lost events and counts.
func (p *process) noteSending(exec, exit string) {
	p.exec = p.collection.Programs[exec]
	p.fork = p.collection.Programs[bpfProgSchedProcessFork]
	var sending []*ebpf.Program
	if p.sends("process.exec") {
		sending = append(sending, p.exec)
	}
	if p.sends("process.exit") {
		sending = append(sending, p.collection.Programs[exit])
	}
	p.env.Report.Sending(sending...)
}

// detach stops the kernel side; maps stay readable.
func (p *process) detach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.links {
		// A link is a descriptor; closing it can only fail if it is closed already.
		_ = l.Close()
	}
	p.links = nil
}

// Close implements probe.Probe.
func (p *process) Close() error {
	p.detach()
	p.env.Report.Programs(nil)
	p.env.Report.Sending()
	var err error
	if p.reader != nil {
		err = p.reader.Close()
	}
	if p.collection != nil {
		p.collection.Close()
	}
	return err
}

// Run implements probe.Streamer.
func (p *process) Run(ctx context.Context, logs *otlp.Logs) error {
	e := newEmitter(p, logs)
	return p.reader.Run(ctx, ring.Handler{
		Record: e.record,
		Full:   logs.Full,
		Flush: func() error {
			e.drained()
			return logs.Flush(ctx)
		},
		Detach: p.detach,
	})
}
