package main

import (
	"fmt"
	"os"
	"time"

	"otelcol-ebpf/test/bench/empty"
)

const (
	emptyExec  = "empty: sched_process_exec"
	execLinger = 100 * time.Millisecond
	// drained is when whatever lingered has been read.
	drained = 2*execLinger + 50*time.Millisecond
	// execBudget is FACTS.md's, in microseconds of the receiver's CPU.
	execBudget = 5
)

// quietly is a configuration whose metrics are not collected while it is measured.
func quietly(conf map[string]any) map[string]any {
	conf["initial_delay"] = "1m"
	return conf
}

// execSection measures what an execution costs, where it happens and in the tracer.
func execSection(b *bench) (table, error) {
	process := func(settings map[string]any) map[string]any {
		conf := quietly(probes("container", map[string]any{"process": settings}))
		conf["event_linger"] = execLinger.String()
		conf["limits"] = map[string]any{"max_events_per_second": 0}
		return conf
	}
	metricsOnly := map[string]any{"events": map[string]any{
		"process.exec": map[string]any{"enabled": false}, "process.exit": map[string]any{"enabled": false},
	}}
	execOnly := map[string]any{"events": map[string]any{"process.exit": map[string]any{"enabled": false}}}
	variants := []variant{
		none(),
		programs(emptyExec, empty.BpfProgSchedProcessExecEmpty),
		receiving("process, metrics only", process(metricsOnly)),
		receiving("process, exec events only", process(execOnly)),
		receiving("process", process(map[string]any{})),
		receiving("process, capture_args: true", process(map[string]any{"capture_args": true})),
		tool("execsnoop"),
	}
	variants[len(variants)-1].every = 2
	n := pick(b, 750, 200)
	wall, err := b.interleave(variants, pick(b, 10, 3), 0.75, func(_ variant, r running) (values, error) {
		return b.tracedExecs(r.pid, n)
	})
	if err != nil {
		return table{}, err
	}
	stats, err := b.kernelTime(variants, func() (float64, error) {
		v, err := b.work(request{Do: "exec", Count: n})
		return v["count"], err
	})
	if err != nil {
		return table{}, err
	}
	t := table{
		title: "Executions: vfork, exec and exit of /bin/true",
		header: []string{"attached", "µs/exec", "added", "BPF stats, ns/exec", "programs", "tracer's CPU, µs/exec",
			"records/exec", "rounds", "budget"},
	}
	for _, v := range variants {
		t.row(execRow(v.name, wall, stats)...)
	}
	t.note("%d executions in each round, one after the other. BPF stats: ns per run, summed over the programs that run at least once in two "+
		"executions (the process probe's are fork, exec, its preparation, exit and SIGCHLD). Tracer's CPU: user and system time of the process "+
		"that reads the events, the receiver's with a linger of %s; all other executions on the machine count too.", n, execLinger)
	return t, nil
}

func execRow(name string, wall, stats *samples) []string {
	if err := wall.missing[name]; err != nil {
		return []string{name, "", "", "", "", "", "", "", "not available: " + err.Error()}
	}
	cells := []string{name, number(wall.median(name, "ns") / 1e3), number(wall.added(name, nothing, "ns") / 1e3),
		"-", "-", "-", "-", fmt.Sprint(wall.count(name))}
	if ran := stats.median(name, "programs"); ran > 0 {
		cells[3], cells[4] = number(stats.median(name, "bpf")), fmt.Sprint(ran)
	}
	if len(wall.rounds[name]["cpu"]) == 0 {
		return cells
	}
	cpu := wall.median(name, "cpu") / 1e3
	cells[5] = number(cpu)
	if len(wall.rounds[name]["records"]) == 0 {
		return cells // Another tool.
	}
	cells[6] = number(wall.median(name, "records"))
	return append(cells, verdict("CPU ", cpu, execBudget, " µs"))
}

// tracedExecs runs executions while the process pid traces them, if it is not 0.
func (b *bench) tracedExecs(pid, n int) (values, error) {
	var before, after values
	var err error
	observed := pid == b.receiver.pid()
	// The first ones fill caches.
	if _, err := b.work(request{Do: "exec", Count: n / 5}); err != nil {
		return nil, err
	}
	if observed {
		time.Sleep(drained)
		if before, err = b.receiver.call(request{Do: "observe"}); err != nil {
			return nil, err
		}
	}
	began := cpuTime(pid)
	v, err := b.work(request{Do: "exec", Count: n})
	if err != nil {
		return nil, err
	}
	result := values{"ns": v["ns"]}
	if pid == 0 {
		return result, nil
	}
	// What lingers is read, and paid for, a little later.
	time.Sleep(drained)
	spent := cpuTime(pid) - began
	if !observed {
		if pid != os.Getpid() {
			result["cpu"] = float64(spent.Nanoseconds()) / v["count"]
		}
		return result, nil
	}
	if after, err = b.receiver.call(request{Do: "observe"}); err != nil {
		return nil, err
	}
	result["cpu"] = float64(spent.Nanoseconds()) / v["count"]
	result["records"] = (after["read"] - before["read"]) / v["count"]
	return result, nil
}
