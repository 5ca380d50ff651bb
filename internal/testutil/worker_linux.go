package testutil

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// workerVariable makes a test binary a worker.
const workerVariable = "OTELCOL_EBPF_TEST_WORKER"

// Worker is a child process, the test binary itself, that does known work on demand:
// what it does between two steps is nothing, so that counts can be compared.
type Worker struct {
	PID    int
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// ServeWorker is what TestMain calls first. In a worker it does the steps that the
// test asks for by name, on one thread, and does not return; otherwise it returns
// at once.
func ServeWorker(steps map[string]func(argument string) (string, error)) {
	if os.Getenv(workerVariable) == "" {
		return
	}
	runtime.LockOSThread()
	fmt.Println("ok")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		name, argument, _ := strings.Cut(lines.Text(), " ")
		result, err := "", fmt.Errorf("no such step: %s", name)
		if step, ok := steps[name]; ok {
			result, err = step(argument)
		}
		if err != nil {
			fmt.Println("error " + err.Error())
			continue
		}
		fmt.Println("ok " + result)
	}
	os.Exit(0)
}

// NewWorker starts a worker, which ends with the test. Its Go runtime sends itself no
// signals.
func NewWorker(tb testing.TB) *Worker {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerVariable+"=1", "GODEBUG=asyncpreemptoff=1", "GOGC=off")
	cmd.Stderr = os.Stderr
	w := &Worker{cmd: cmd}
	if w.stdin, err = cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	w.stdout = bufio.NewReader(stdout)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	w.PID = cmd.Process.Pid
	tb.Cleanup(w.End)
	if _, err := w.Wait(); err != nil {
		tb.Fatal(err)
	}
	return w
}

// End ends the worker and waits for it. A second call does nothing.
func (w *Worker) End() {
	if w.cmd == nil {
		return
	}
	_ = w.stdin.Close()
	_ = w.cmd.Wait()
	w.cmd = nil
}

// Do asks for a step, waits until it is done, and returns its result.
func (w *Worker) Do(tb testing.TB, step string) string {
	tb.Helper()
	w.Begin(tb, step)
	result, err := w.Wait()
	if err != nil {
		tb.Fatalf("worker: %s: %v", step, err)
	}
	return result
}

// Begin asks for a step and does not wait.
func (w *Worker) Begin(tb testing.TB, step string) {
	tb.Helper()
	if _, err := io.WriteString(w.stdin, step+"\n"); err != nil {
		tb.Fatalf("worker: %s: %v", step, err)
	}
}

// Wait waits for the step that Begin began.
func (w *Worker) Wait() (string, error) {
	line, err := w.stdout.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("worker is gone: %w", err)
	}
	kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if kind != "ok" {
		return "", errors.New(text)
	}
	return text, nil
}

// Stop stops all of the worker's threads and returns when none of them runs any
// more; Continue lets them go on.
func (w *Worker) Stop(tb testing.TB) {
	tb.Helper()
	if err := unix.Kill(w.PID, unix.SIGSTOP); err != nil {
		tb.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !w.stopped(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("worker %d does not stop", w.PID)
		}
	}
	// A thread has its state a moment before it leaves the CPU.
	time.Sleep(20 * time.Millisecond)
}

func (w *Worker) stopped() bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", w.PID))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		_, after, _ := strings.Cut(string(text), ") ")
		if err != nil || !strings.HasPrefix(after, "T") {
			return false
		}
	}
	return true
}

// Continue is Stop's opposite.
func (w *Worker) Continue(tb testing.TB) {
	tb.Helper()
	if err := unix.Kill(w.PID, unix.SIGCONT); err != nil {
		tb.Fatal(err)
	}
}

// SumTasks adds up a number that a file of /proc/PID/task/TID has for each thread
// of a process.
func SumTasks(tb testing.TB, pid int, file string, number func(text string) (uint64, error)) uint64 {
	tb.Helper()
	paths, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/" + file)
	if err != nil || len(paths) == 0 {
		tb.Fatalf("threads of %d: %v", pid, err)
	}
	sum := uint64(0)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		n, err := number(string(text))
		if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		sum += n
	}
	return sum
}
