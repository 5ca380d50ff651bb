package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Roles of children. A worker makes the system calls, executions and switches that
// are measured; it is a process of its own because the receiver does not observe
// itself. An echo is the other end of a worker's pipes.
const (
	roleWorker   = "worker"
	roleEcho     = "echo"
	roleReceiver = "receiver"
)

// serveWorker does one request of a worker.
func serveWorker(r request) (values, error) {
	runtime.LockOSThread()
	if err := pin(r.CPU); err != nil {
		return nil, err
	}
	switch r.Do {
	case "getppid":
		return timed(r.Time, 500, getppid), nil
	case "openat":
		return timed(r.Time, 50, openat), nil
	case "exec":
		return execs(r.Count)
	case "switch":
		return switches(r.Time)
	case "strange":
		strange(r.Count)
		return nil, nil
	}
	return nil, fmt.Errorf("unknown request")
}

// pin binds the calling thread, and what it starts, to one CPU.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("bind to CPU %d: %w", cpu, err)
	}
	return nil
}

// timed repeats an operation, in batches so short that most are not interrupted, and
// returns the median of the batches in nanoseconds per operation.
func timed(duration time.Duration, batch int, operation func()) values {
	var samples []float64
	for end := time.Now().Add(duration); time.Now().Before(end); {
		begin := time.Now()
		for range batch {
			operation()
		}
		samples = append(samples, float64(time.Since(begin).Nanoseconds())/float64(batch))
	}
	count := float64(len(samples) * batch)
	return values{"ns": median(samples), "count": count}
}

func getppid() { _, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0) }

// openat opens and closes a file.
func openat() {
	path := [...]byte{'/', 'd', 'e', 'v', '/', 'n', 'u', 'l', 'l', 0}
	at := unix.AT_FDCWD
	fd, _, _ := syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(&path[0])), syscall.O_RDONLY, 0, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
}

// firstStrange is the first of a range of numbers that no system call has.
const firstStrange = 600

// strange makes calls that do not exist, each of which is a series of its own: a
// count, and errors with ENOSYS.
func strange(n int) {
	for i := range n {
		_, _, _ = syscall.RawSyscall(uintptr(firstStrange+i), 0, 0, 0)
	}
}

// execs runs a program so often, by vfork and exec.
func execs(n int) (values, error) {
	samples := make([]float64, n)
	pid := 0
	for i := range n {
		begin := time.Now()
		var err error
		pid, err = syscall.ForkExec("/bin/true", []string{"/bin/true"}, &syscall.ProcAttr{Dir: "/"})
		if err != nil {
			return nil, err
		}
		var status syscall.WaitStatus
		for {
			if _, err = syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
				break
			}
		}
		if err != nil || status != 0 {
			return nil, fmt.Errorf("/bin/true: %w, status %d", err, status)
		}
		samples[i] = float64(time.Since(begin).Nanoseconds())
	}
	return values{"ns": median(samples), "count": float64(n), "pid": float64(pid)}, nil
}

// switches plays ping-pong with another process on the same CPU: two context
// switches for each round trip.
func switches(duration time.Duration) (values, error) {
	var there, back [2]int
	for _, p := range []*[2]int{&there, &back} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return nil, err
		}
	}
	ours := []*os.File{os.NewFile(uintptr(there[0]), "there"), os.NewFile(uintptr(back[1]), "back")}
	defer unix.Close(back[0])
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+roleEcho)
	cmd.ExtraFiles = ours
	err := cmd.Start()
	for _, f := range ours {
		_ = f.Close()
	}
	if err != nil {
		unix.Close(there[1])
		return nil, err
	}
	result := timed(duration, 20, func() { send(there[1]); receive(back[0]) })
	unix.Close(there[1])
	err = cmd.Wait()
	return values{"ns": result["ns"] / 2, "count": result["count"] * 2}, err
}

// send and receive pass one byte through a pipe, without the runtime's help.
func send(fd int) {
	var b [1]byte
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1)
		if n == 1 && errno == 0 || errno != syscall.EINTR {
			return
		}
	}
}

func receive(fd int) bool {
	var b [1]byte
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1)
		if errno != syscall.EINTR {
			return n == 1 && errno == 0
		}
	}
}

// echo sends back what comes, until nothing more does.
func echo() {
	runtime.LockOSThread()
	const in, out = 3, 4
	for receive(in) {
		send(out)
	}
}
