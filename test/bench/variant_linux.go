package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"otelcol-ebpf/test/bench/empty"
)

// variant is something that may be attached while an operation is measured.
type variant struct {
	name string
	// every is in how many rounds it takes part once; other tools take long to start.
	every int
	start func(*bench) (running, error)
}

// running is an attached variant: the process that holds its programs, and how to
// detach them.
type running struct {
	pid  int
	stop func() error
}

const nothing = "no program"

// none attaches nothing.
func none() variant {
	return variant{nothing, 1, func(*bench) (running, error) {
		return running{stop: func() error { return nil }}, nil
	}}
}

// programs attaches some of package empty's.
func programs(name string, names ...string) variant {
	return variant{name, 1, func(b *bench) (running, error) {
		links, err := b.attach(names...)
		return running{os.Getpid(), links}, err
	}}
}

// receiving runs a receiver with a configuration.
func receiving(name string, conf map[string]any) variant {
	return variant{name, 1, func(b *bench) (running, error) {
		if _, err := b.receiver.call(request{Do: "start", Conf: conf}); err != nil {
			return running{}, err
		}
		return running{b.receiver.pid(), func() error {
			_, err := b.receiver.call(request{Do: "stop"})
			return err
		}}, nil
	}}
}

// probes is a configuration with the given probes and scope.
func probes(scope string, settings map[string]any) map[string]any {
	conf := map[string]any{"scope": scope}
	if settings != nil {
		conf["probes"] = settings
	}
	return conf
}

// tool runs another program until it has attached its own.
func tool(command ...string) variant {
	name := strings.Join(command, " ")
	return variant{name, 5, func(*bench) (running, error) {
		path, err := exec.LookPath(command[0])
		if err != nil {
			return running{}, errors.New("not installed")
		}
		cmd := exec.Command(path, command[1:]...)
		output := &tail{}
		cmd.Stdout, cmd.Stderr = output, output
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := cmd.Start(); err != nil {
			return running{}, err
		}
		stop := func() error {
			_ = cmd.Process.Signal(os.Interrupt)
			kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			_ = cmd.Wait() // Interrupted, it fails.
			return nil
		}
		if !attached(cmd.Process.Pid) {
			_ = stop()
			return running{}, fmt.Errorf("did not attach: %s", output)
		}
		return running{cmd.Process.Pid, stop}, nil
	}}
}

// attached waits until a process holds programs and opens nothing further.
func attached(pid int) bool {
	last, same := 0, 0
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		all := descriptors(pid)
		if len(all) == 0 {
			return false // It has ended.
		}
		if len(all) != last || len(programsOf(pid)) == 0 {
			last, same = len(all), 0
			continue
		}
		if same++; same == 6 {
			return true
		}
	}
	return false
}

// tail keeps the end of what is written to it, on one line.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-200):]
	return len(p), nil
}

func (t *tail) String() string {
	return strings.ReplaceAll(strings.Join(strings.Fields(string(t.text)), " "), "|", "/")
}

// attach attaches programs of package empty and returns how to detach them.
func (b *bench) attach(names ...string) (func() error, error) {
	var links []io.Closer
	detach := func() error {
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	for _, name := range names {
		l, err := link.AttachTracing(link.TracingOptions{Program: b.empty.Programs[name]})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("attach %s: %w", name, err), detach())
		}
		links = append(links, l)
	}
	return detach, nil
}

// loadEmpty loads package empty's hooks.
func loadEmpty() (*ebpf.Collection, error) {
	spec, err := empty.LoadBpf()
	if err != nil {
		return nil, err
	}
	delete(spec.Programs, empty.BpfProgFill)
	for _, name := range []string{empty.BpfMapEvents, empty.BpfMapEventCounts, empty.BpfMapEventWindow, empty.BpfMapFilling} {
		delete(spec.Maps, name)
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the empty programs: %w", err)
	}
	return collection, nil
}
