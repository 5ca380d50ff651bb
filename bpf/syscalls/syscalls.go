// Package syscalls is the probe for system calls: how many, which fail with what,
// and on request how long they take. syscalls.bpf.c says which hooks it uses.
package syscalls

import (
	_ "embed"
	"fmt"
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/probe"
)

//go:embed metadata.yaml
var metadataYAML []byte

// Type returns the probe's type.
func Type() probe.Type {
	return probe.Type{
		Metadata:  metadata.MustParse(metadataYAML),
		NewConfig: func() probe.Config { return &Config{} },
		New:       newProbe,
	}
}

// Config is what stands under probes.syscalls. Calls are named as in the kernel's
// tables: openat, futex.
type Config struct {
	// Include counts only these calls; empty counts all.
	Include []string `mapstructure:"include"`
	// Exclude counts all but these.
	Exclude []string `mapstructure:"exclude"`
	// Latency measures durations, which needs a second program on every call.
	Latency bool `mapstructure:"latency"`
	// LatencySyscalls measures only these calls; empty measures all that are counted.
	LatencySyscalls []string `mapstructure:"latency_syscalls"`
}

// Validate implements probe.Config.
func (c *Config) Validate() error {
	if len(c.Include) > 0 && len(c.Exclude) > 0 {
		return fmt.Errorf("include and exclude contradict each other: set one of them")
	}
	if len(c.LatencySyscalls) > 0 && !c.Latency {
		return fmt.Errorf("latency_syscalls: needs latency: true")
	}
	for _, list := range []struct {
		key   string
		names []string
	}{{"include", c.Include}, {"exclude", c.Exclude}, {"latency_syscalls", c.LatencySyscalls}} {
		for i, name := range list.names {
			if !known(name) {
				return fmt.Errorf("%s[%d]: %q is not a system call of any table known here", list.key, i, name)
			}
			if slices.Contains(list.names[:i], name) {
				return fmt.Errorf("%s[%d]: %q is listed twice", list.key, i, name)
			}
		}
	}
	for i, name := range c.LatencySyscalls {
		if !c.counts(name) {
			return fmt.Errorf("latency_syscalls[%d]: %q is not counted: include and exclude leave it out", i, name)
		}
	}
	return nil
}

// counts tells whether the filters let the call be counted.
func (c *Config) counts(name string) bool {
	if len(c.Include) > 0 {
		return slices.Contains(c.Include, name)
	}
	return !slices.Contains(c.Exclude, name)
}

// times tells whether the call's duration is measured.
func (c *Config) times(name string) bool {
	return c.Latency && c.counts(name) && (len(c.LatencySyscalls) == 0 || slices.Contains(c.LatencySyscalls, name))
}

// tables are the numbers' names: the architecture's own table, and the one of its
// 32-bit programs.
func tables(goarch string) (native, compat map[int]string) {
	if goarch == "arm64" {
		return arch.AARCH64.SyscallNumbers, arch.ARM.SyscallNumbers
	}
	return arch.X86_64.SyscallNumbers, arch.I386.SyscallNumbers
}

// known tells whether any supported architecture has the call, so that one
// configuration fits all.
func known(name string) bool {
	for _, info := range []*arch.Info{arch.X86_64, arch.AARCH64, arch.I386, arch.ARM} {
		if _, ok := info.SyscallNames[name]; ok {
			return true
		}
	}
	return false
}

// unknownNumber stands for every number that no table can have: SYSCALL_UNKNOWN.
const unknownNumber = 1023

// nameOf is the call's name, or syscall_N for a number newer than the table.
func nameOf(number int, isCompat bool) string {
	if number == unknownNumber {
		return "unknown"
	}
	native, compat := tables(runtime.GOARCH)
	names := native
	if isCompat {
		names = compat
	}
	if name, ok := names[number]; ok {
		return name
	}
	return fmt.Sprintf("syscall_%d", number)
}
