package load

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

// preemptible is the first release in which tasks are preempted inside programs at
// tp_btf hooks, 7.0, as features.LinuxVersionCode has it. 6.18 does not, 7.3 does.
const preemptible = 7 << 16

// PreemptibleTracing tells whether tasks are preempted inside tp_btf programs. Until
// such a task goes on, the kernel skips the program for all other tasks on that CPU
// (its recursion guard): on 7.3 that lost 3 % of execs and 30 % of system calls of
// tasks that compete for a CPU. Classic tracepoints run with preemption off and lose
// nothing; they cost some 40 ns more and see less.
func PreemptibleTracing() bool {
	version, err := features.LinuxVersionCode()
	return err == nil && version >= preemptible
}

// Tracepoint is a program for a classic tracepoint.
type Tracepoint struct {
	Group, Event string
	Program      *ebpf.Program
}

// Hook is the tracepoint as metadata.yaml names hooks.
func (t Tracepoint) Hook() string { return "tracepoint/" + t.Group + "/" + t.Event }

// AttachTracepoints attaches all or none. It needs tracefs.
func AttachTracepoints(points []Tracepoint) ([]io.Closer, error) {
	var links []io.Closer
	for _, t := range points {
		l, err := link.Tracepoint(t.Group, t.Event, t.Program, nil)
		if err != nil {
			for _, l := range links {
				err = errors.Join(err, l.Close())
			}
			return nil, fmt.Errorf("attach %s: %w", t.Hook(), err)
		}
		links = append(links, l)
	}
	return links, nil
}
