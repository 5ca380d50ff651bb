package main

import (
	"fmt"
	"time"

	"otelcol-ebpf/test/bench/empty"
)

// Names of variants that others are compared with.
const (
	emptyExit   = "empty: sys_exit"
	emptyBoth   = "empty: sys_enter + sys_exit"
	countFloor  = "floor: one per-CPU hash operation"
	timeFloor   = "floor: task storage, two hash operations"
	bpftraceRun = "tracepoint:raw_syscalls:sys_exit { @[args->id] = count(); }"
)

// compared says what a variant's budget is computed from.
type compared struct{ empty, floor string }

func syscallVariants() ([]variant, map[string]compared) {
	only := func(name string, settings map[string]any) map[string]any { return map[string]any{name: settings} }
	quiet := map[string]any{}
	counts := compared{emptyExit, countFloor}
	variants := []variant{
		none(),
		programs(emptyExit, empty.BpfProgSysExitEmpty),
		programs(emptyBoth, empty.BpfProgSysEnterEmpty, empty.BpfProgSysExitEmpty),
		programs(countFloor, empty.BpfProgSysExitCountFloor),
		programs(timeFloor, empty.BpfProgSysEnterTimeFloor, empty.BpfProgSysExitTimeFloor),
		receiving("process", probes("container", only("process", quiet))),
		receiving("scheduler", probes("container", only("scheduler", quiet))),
	}
	budgets := map[string]compared{}
	for _, scope := range []string{"host", "container", "process"} {
		name := "syscalls, scope " + scope
		variants = append(variants, receiving(name, probes(scope, only("syscalls", quiet))))
		budgets[name] = counts
	}
	timed := "syscalls, latency: true"
	variants = append(variants, receiving(timed, probes("container", only("syscalls", map[string]any{"latency": true}))))
	budgets[timed] = compared{emptyBoth, timeFloor}
	all := "default (all probes)"
	variants = append(variants, receiving(all, nil))
	budgets[all] = counts
	return append(variants, tool("syscount"), tool("syscount", "-L"), tool("bpftrace", "-e", bpftraceRun)), budgets
}

// syscallSection measures what is added to system calls.
func syscallSection(b *bench) (table, error) {
	variants, budgets := syscallVariants()
	duration := pick(b, 80*time.Millisecond, 25*time.Millisecond)
	loop := func(what string) (values, error) { return b.work(request{Do: what, Time: duration}) }
	wall, err := b.interleave(variants, pick(b, 15, 3), 0.8, func(variant, running) (values, error) {
		own, err := loop("getppid")
		if err != nil {
			return nil, err
		}
		files, err := loop("openat")
		if err != nil {
			return nil, err
		}
		return values{"getppid": own["ns"], "openat": files["ns"]}, nil
	})
	if err != nil {
		return table{}, err
	}
	stats, err := b.kernelTime(variants, func() (float64, error) {
		v, err := loop("getppid")
		return v["count"], err
	})
	if err != nil {
		return table{}, err
	}
	t := table{
		title: "System calls: nanoseconds per call",
		header: []string{"attached", "getppid", "added", "× empty", "openat+close", "added", "× empty",
			"BPF stats", "rounds", "budget"},
	}
	for _, v := range variants {
		t.row(syscallRow(v.name, budgets, wall, stats)...)
	}
	t.note("Added: median over the rounds of the difference to no program in the same round. × empty: to the empty program(s) on " +
		"the same hooks (sys_exit, or both with latency). BPF stats: the kernel's own ns per run, summed over the programs that run on " +
		"each call, from rounds of their own because the statistics add some 70 ns to each run. Budget: 1.5 × empty + " +
		"the map operations (floor − empty), for the wall clock and for the statistics.")
	return t, nil
}

func syscallRow(name string, budgets map[string]compared, wall, stats *samples) []string {
	if err := wall.missing[name]; err != nil {
		return []string{name, "", "", "", "", "", "", "", "", "not available: " + err.Error()}
	}
	to := emptyExit
	with, judged := budgets[name]
	if judged {
		to = with.empty
	}
	if name == timeFloor || name == "syscount -L" {
		to = emptyBoth
	}
	cells := []string{name}
	for _, quantity := range []string{"getppid", "openat"} {
		added := wall.added(name, nothing, quantity)
		cells = append(cells, number(wall.median(name, quantity)), number(added), ratio(added, wall.added(to, nothing, quantity)))
		if name == nothing {
			cells[len(cells)-1], cells[len(cells)-2] = "", ""
		}
	}
	bpf := "-"
	if stats.median(name, "programs") > 0 {
		bpf = number(stats.median(name, "bpf"))
	}
	cells = append(cells, bpf, fmt.Sprint(wall.count(name)))
	if judged {
		cells = append(cells, budgetOf(name, with, wall, stats, "getppid"))
	}
	return cells
}

// budgetOf is the verdict of FACTS.md's rule on one quantity and on the statistics.
func budgetOf(name string, with compared, wall, stats *samples, quantity string) string {
	allowed := func(empty, floor float64) float64 { return 1.5*empty + max(floor-empty, 0) }
	text := verdict("wall ", wall.added(name, nothing, quantity),
		allowed(wall.added(with.empty, nothing, quantity), wall.added(with.floor, nothing, quantity)), "")
	if empty := stats.median(with.empty, "bpf"); empty > 0 {
		text += "; " + verdict("stats ", stats.median(name, "bpf"), allowed(empty, stats.median(with.floor, "bpf")), "")
	}
	return text
}
