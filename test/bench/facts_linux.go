package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// facts describe the machine.
func facts() string {
	var name unix.Utsname
	_ = unix.Uname(&name)
	programs := 0
	for id := ebpf.ProgramID(0); ; programs++ {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			break
		}
		id = next
	}
	lines := []string{
		"# What the probes cost\n",
		fmt.Sprintf("- kernel: Linux %s %s", unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])),
		fmt.Sprintf("- CPUs: %d × %s", runtime.NumCPU(), cpuModel()),
		fmt.Sprintf("- load at the start: %s; BPF programs of others: %d", loadAverage(), programs),
		fmt.Sprintf("- %s", runtime.Version()),
		fmt.Sprintf("- other tools: %s", tools()),
	}
	return strings.Join(lines, "\n") + "\n"
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func tools() string {
	var found []string
	for _, name := range []string{"bpftrace", "syscount", "execsnoop", "runqlat", "perf"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		} else {
			found = append(found, name+" (not installed)")
		}
	}
	return strings.Join(found, ", ")
}
