package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// roleVariable makes this binary serve instead of measure: "worker" or "receiver".
const roleVariable = "OTELCOL_EBPF_BENCH_ROLE"

// values are what a child measured, by name.
type values map[string]float64

// request is one line on a child's standard input, response one on its output.
type request struct {
	Do string
	// Time is how long to do it, Count how often; each command takes one of them.
	Time  time.Duration  `json:",omitempty"`
	Count int            `json:",omitempty"`
	CPU   int            `json:",omitempty"`
	Conf  map[string]any `json:",omitempty"`
}

type response struct {
	Values values
	Error  string
}

// child is a process of this binary that answers requests. It ends when its
// standard input does, so that it outlives nobody.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	to    *json.Encoder
	from  *json.Decoder
}

func newChild(role string) (*child, error) {
	cmd := exec.Command("/proc/self/exe")
	// A preemption is a signal, which would end up in what is measured.
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	if role != roleReceiver {
		cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1", "GOGC=off")
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return &child{cmd, stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)}, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// call asks the child for something and waits for the answer.
func (c *child) call(r request) (values, error) {
	if err := c.to.Encode(r); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Do, err)
	}
	var answer response
	if err := c.from.Decode(&answer); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Do, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %s", r.Do, answer.Error)
	}
	return answer.Values, nil
}

// close ends the child and waits for it.
func (c *child) close() {
	_ = c.stdin.Close()
	timer := time.AfterFunc(10*time.Second, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	_ = c.cmd.Wait()
}

// serve answers requests on standard input and returns the exit code.
func serve(role string) int {
	handle, finish := serveWorker, func() {}
	switch role {
	case roleReceiver:
		r := &receiver{}
		handle, finish = r.handle, r.finish
	case roleEcho:
		echo()
		return 0
	}
	defer finish()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return 0
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", role, err)
			return 1
		}
		answer, text := response{}, ""
		result, err := handle(r)
		if err != nil {
			text = err.Error()
		}
		answer.Values, answer.Error = result, text
		if err := out.Encode(answer); err != nil {
			return 1
		}
	}
}
