package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// program is what the kernel says of a program that a process holds.
type program struct {
	id   ebpf.ProgramID
	runs uint64
	time time.Duration
}

// programsOf are the BPF programs that a process has descriptors of, by id.
func programsOf(pid int) map[ebpf.ProgramID]program {
	found := map[ebpf.ProgramID]program{}
	for _, info := range descriptors(pid) {
		if _, ok := info["prog_tag"]; !ok || info["link_type"] != "" {
			continue
		}
		id := ebpf.ProgramID(whole(info["prog_id"]))
		found[id] = program{id, whole(info["run_cnt"]), time.Duration(whole(info["run_time_ns"]))}
	}
	return found
}

// mapMemory is the kernel memory of the maps that a process has descriptors of.
func mapMemory(pid int) uint64 {
	sizes := map[string]uint64{}
	for _, info := range descriptors(pid) {
		if info["map_type"] != "" {
			sizes[info["map_id"]] = whole(info["memlock"])
		}
	}
	total := uint64(0)
	for size := range maps.Values(sizes) {
		total += size
	}
	return total
}

// descriptors are the fdinfo files of a process: key to value.
func descriptors(pid int) []map[string]string {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return nil
	}
	var all []map[string]string
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			continue // closed meanwhile
		}
		info := map[string]string{}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ":")
			info[key] = strings.TrimSpace(value)
		}
		_ = file.Close()
		all = append(all, info)
	}
	return all
}

func whole(text string) uint64 {
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		return 0
	}
	return n
}

// runTime is what the programs that ran between two readings cost each time, summed
// over those that ran for at least half of the operations.
func runTime(before, after map[ebpf.ProgramID]program, operations float64) (ns float64, programs int) {
	for id, now := range after {
		runs := float64(now.runs - before[id].runs)
		if runs < operations/2 || runs == 0 {
			continue
		}
		ns += float64(now.time-before[id].time) / runs
		programs++
	}
	return ns, programs
}

// programNamed finds one of a process's programs.
func programNamed(pid int, name string) (*ebpf.Program, error) {
	for _, id := range slices.Sorted(maps.Keys(programsOf(pid))) {
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return nil, err
		}
		info, err := p.Info()
		// The kernel keeps 15 characters of a name.
		if err == nil && info.Name != "" && strings.HasPrefix(name, info.Name) {
			return p, nil
		}
		_ = p.Close()
	}
	return nil, fmt.Errorf("process %d has no program %s", pid, name)
}

// cpuTime is the processor time of a process and all its threads so far.
func cpuTime(pid int) time.Duration {
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of linux/posix-timers.h.
	const sched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// residentMemory is a process's resident set in bytes.
func residentMemory(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return 0
	}
	return float64(whole(fields[1])) * float64(os.Getpagesize())
}
