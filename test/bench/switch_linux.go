package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"otelcol-ebpf/test/bench/empty"
)

const (
	emptySwitch = "empty: sched_switch + sched_wakeup"
	switchFloor = "floor: task storage, hash operations"

	defaultScheduler = "scheduler"
)

// switchSection measures what is added to a context switch.
func switchSection(b *bench) (table, error) {
	scheduler := func(settings map[string]any) map[string]any {
		return quietly(probes("container", map[string]any{"scheduler": settings}))
	}
	variants := []variant{
		none(),
		programs(emptySwitch, empty.BpfProgSchedSwitchEmpty, empty.BpfProgSchedWakeupEmpty),
		{switchFloor, 1, startSwitchFloor},
		receiving(defaultScheduler, scheduler(map[string]any{})),
		receiving("scheduler, on_cpu, off_cpu", scheduler(map[string]any{"on_cpu": true, "off_cpu": true})),
		receiving("default (all probes)", quietly(map[string]any{})),
		tool("runqlat"),
	}
	duration := pick(b, 100*time.Millisecond, 50*time.Millisecond)
	loop := func() (values, error) { return b.work(request{Do: "switch", Time: duration}) }
	var noPerf error
	wall, err := b.interleave(variants, pick(b, 15, 3), 0.75, func(variant, running) (values, error) {
		v, err := loop()
		if err != nil {
			return nil, err
		}
		result := values{"own": v["ns"]}
		if noPerf != nil {
			return result, nil
		}
		if result["perf"], noPerf = b.perfPipe(pick(b, 10000, 3000)); noPerf != nil {
			delete(result, "perf")
		}
		return result, nil
	})
	if err != nil {
		return table{}, err
	}
	stats, err := b.kernelTime(variants, func() (float64, error) {
		v, err := loop()
		return v["count"], err
	})
	if err != nil {
		return table{}, err
	}
	t := table{
		title:  "Context switches: nanoseconds per switch, two processes on one CPU with a pipe between them",
		header: []string{"attached", "ping-pong", "added", "× empty", "perf bench", "added", "BPF stats", "rounds", "budget"},
	}
	for _, v := range variants {
		t.row(switchRow(v.name, wall, stats)...)
	}
	t.note("Each switch also is a wake-up. Budget: 1.5 × empty + the map operations (floor − empty); none for what is opt-in. All probes together also count the " +
		"read or write that each switch takes. " +
		"Ping-pong is the median of short batches; perf bench is a mean over its whole run, which other work on the machine reaches.")
	if noPerf != nil {
		t.note("perf bench sched pipe is not available: %v", noPerf)
	}
	return t, nil
}

func switchRow(name string, wall, stats *samples) []string {
	if err := wall.missing[name]; err != nil {
		return []string{name, "", "", "", "", "", "", "", "not available: " + err.Error()}
	}
	added := wall.added(name, nothing, "own")
	cells := []string{name, number(wall.median(name, "own")), number(added), ratio(added, wall.added(emptySwitch, nothing, "own")),
		number(wall.median(name, "perf")), number(wall.added(name, nothing, "perf")), "-", fmt.Sprint(wall.count(name))}
	if name == nothing {
		cells[2], cells[3], cells[5] = "", "", ""
	}
	if stats.median(name, "programs") > 0 {
		cells[6] = number(stats.median(name, "bpf"))
	}
	if name == defaultScheduler {
		cells = append(cells, budgetOf(name, compared{emptySwitch, switchFloor}, wall, stats, "own"))
	}
	return cells
}

// startSwitchFloor attaches the floor's programs. Storage may not be made under the
// run-queue lock: the fork hook makes that of tasks to come.
func startSwitchFloor(b *bench) (running, error) {
	detach, err := b.attach(empty.BpfProgSchedProcessForkFloor, empty.BpfProgSchedSwitchFloor, empty.BpfProgSchedWakeupFloor)
	if err != nil {
		return running{}, err
	}
	// A worker that exists already has none.
	b.worker.close()
	if b.worker, err = newChild(roleWorker); err != nil {
		return running{}, errors.Join(err, detach())
	}
	return running{os.Getpid(), detach}, nil
}

// perfPipe runs perf's own ping-pong on the workers' CPU and returns ns per switch.
func (b *bench) perfPipe(loops int) (float64, error) {
	path, err := exec.LookPath("perf")
	if err != nil {
		return 0, errors.New("perf is not installed")
	}
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		return 0, err
	}
	// This thread is locked, so the child inherits what it is bound to.
	if err := pin(b.cpu); err != nil {
		return 0, err
	}
	output, err := exec.Command(path, "bench", "sched", "pipe", "-l", strconv.Itoa(loops)).CombinedOutput()
	if back := unix.SchedSetaffinity(0, &own); back != nil {
		return 0, back
	}
	match := regexp.MustCompile(`([0-9.]+) usecs/op`).FindSubmatch(output)
	if err != nil || match == nil {
		return 0, fmt.Errorf("perf bench sched pipe: %w: %.100q", err, output)
	}
	µs, err := strconv.ParseFloat(string(match[1]), 64)
	return µs * 1e3 / 2, err
}
