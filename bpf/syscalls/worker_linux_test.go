package syscalls

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.ServeWorker(map[string]func(string) (string, error){
		"call":        callStep,
		"openat":      openatStep,
		"compat":      compatStep,
		"receive":     receiveStep,
		"sleep":       sleepStep,
		"fork":        func(argument string) (string, error) { return forkStep(argument, false) },
		"fork-killed": func(argument string) (string, error) { return forkStep(argument, true) },
		"threads":     threadsStep,
		"signals":     signalsStep,
		"restart":     restartStep,
		"interrupt":   interruptStep,
		"exec-fail":   execFailStep,
		"exec":        execStep,
		"seccomp":     seccompStep,
	})
	os.Exit(m.Run())
}

func numbers(argument string) []uintptr {
	var all []uintptr
	for word := range strings.FieldsSeq(argument) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			panic(err)
		}
		all = append(all, uintptr(n))
	}
	return append(all, make([]uintptr, 8)...)
}

// callStep makes a call "times number arguments..." and returns the last one's errno.
func callStep(argument string) (string, error) {
	a := numbers(argument)
	var errno syscall.Errno
	for range a[0] {
		_, _, errno = unix.RawSyscall6(a[1], a[2], a[3], a[4], a[5], a[6], a[7])
	}
	return unix.ErrnoName(errno), nil
}

func openatStep(argument string) (string, error) {
	path := append([]byte("/nonexistent/file"), 0)
	cwd := unix.AT_FDCWD
	var errno syscall.Errno
	for range numbers(argument)[0] {
		_, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(&path[0])), 0, 0, 0, 0)
	}
	return unix.ErrnoName(errno), nil
}

// receiveStep asks a socket that has nothing.
func receiveStep(argument string) (string, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	var errno syscall.Errno
	for range numbers(argument)[0] {
		_, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(pair[0]), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	}
	return unix.ErrnoName(errno), nil
}

// sleepStep sleeps "times nanoseconds" and returns how long that took.
func sleepStep(argument string) (string, error) {
	a := numbers(argument)
	request := unix.NsecToTimespec(int64(a[1]))
	began := time.Now()
	for range a[0] {
		_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&request)), 0, 0, 0)
	}
	return strconv.FormatInt(int64(time.Since(began)), 10), nil
}

// rawFork forks without Go's runtime; the child ends at once, or waits to be killed.
//
//go:norace
//go:noinline
func rawFork(wait bool) (uintptr, syscall.Errno) {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	for wait {
		_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

func forkStep(argument string, kill bool) (string, error) {
	for range numbers(argument)[0] {
		pid, errno := rawFork(kill)
		if errno != 0 {
			return "", errno
		}
		if kill {
			if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
				return "", err
			}
		}
		if _, err := unix.Wait4(int(pid), nil, 0, nil); err != nil {
			return "", err
		}
	}
	return "", nil
}

// threadsStep lets threads end: a goroutine that ends locked to its thread takes it along.
func threadsStep(argument string) (string, error) {
	ids := map[int]bool{}
	var mu sync.Mutex
	for range numbers(argument)[0] {
		var done sync.WaitGroup
		done.Add(1)
		go func() {
			runtime.LockOSThread()
			mu.Lock()
			ids[unix.Gettid()] = true
			mu.Unlock()
			done.Done()
		}()
		done.Wait()
	}
	// Wait until they are gone.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		alive := 0
		for id := range ids {
			if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(id)); err == nil && id != os.Getpid() {
				alive++
			}
		}
		if alive == 0 {
			break
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("%d threads live on", alive)
		}
	}
	return "", nil
}

func signalsStep(argument string) (string, error) {
	received := make(chan os.Signal, 1)
	signal.Notify(received, unix.SIGUSR1)
	defer signal.Stop(received)
	for range numbers(argument)[0] {
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGUSR1); err != nil {
			return "", err
		}
		<-received
	}
	return "", nil
}

// whileIn sends the thread n signals, each while it is inside the call and after
// the one before was handled.
func whileIn(call uintptr, tid int, n uintptr) error {
	received := make(chan os.Signal, 1)
	signal.Notify(received, unix.SIGUSR1)
	defer signal.Stop(received)
	for range n {
		if err := waitUntilIn(call, tid); err != nil {
			return err
		}
		if err := unix.Tgkill(os.Getpid(), tid, unix.SIGUSR1); err != nil {
			return err
		}
		<-received
	}
	return waitUntilIn(call, tid)
}

func waitUntilIn(call uintptr, tid int) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(text), strconv.Itoa(int(call))+" ") {
			return nil
		}
	}
	return errors.New("the call does not begin")
}

// restartStep reads from a pipe and is interrupted; Go installs its handlers with
// SA_RESTART, so the reads go on.
func restartStep(argument string) (string, error) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		return "", err
	}
	tid, failed := unix.Gettid(), make(chan error, 1)
	go func() {
		err := whileIn(unix.SYS_READV, tid, numbers(argument)[0])
		_, writeErr := unix.Write(pipe[1], []byte("x"))
		failed <- errors.Join(err, writeErr)
	}()
	n, err := unix.Readv(pipe[0], [][]byte{make([]byte, 1)})
	if err != nil || n != 1 {
		return "", fmt.Errorf("readv: %d, %w", n, err)
	}
	return "", <-failed
}

// interruptStep begins long sleeps, which signals end with EINTR: nanosleeps are not
// restarted after a handler ran.
func interruptStep(argument string) (string, error) {
	received := make(chan os.Signal, 1)
	signal.Notify(received, unix.SIGUSR1)
	defer signal.Stop(received)
	request := unix.NsecToTimespec(int64(20 * time.Second))
	tid := unix.Gettid()
	began := time.Now()
	for range numbers(argument)[0] {
		failed := make(chan error, 1)
		go func() {
			err := waitUntilIn(unix.SYS_CLOCK_NANOSLEEP, tid)
			failed <- errors.Join(err, unix.Tgkill(os.Getpid(), tid, unix.SIGUSR1))
		}()
		_, _, errno := unix.Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&request)), 0, 0, 0)
		if err := <-failed; errno != unix.EINTR || err != nil {
			return "", fmt.Errorf("clock_nanosleep: %w, %w", errno, err)
		}
		<-received
	}
	return strconv.FormatInt(int64(time.Since(began)), 10), nil
}

func execFailStep(argument string) (string, error) {
	for range numbers(argument)[0] {
		if err := syscall.Exec("/nonexistent/program", []string{"program"}, nil); !errors.Is(err, unix.ENOENT) {
			return "", err
		}
	}
	return "", nil
}

// execStep becomes a new worker, which says so in place of this one.
func execStep(string) (string, error) {
	return "", syscall.Exec("/proc/self/exe", os.Args[:1], os.Environ())
}

// seccompStep has seccomp refuse "times number" with EACCES, and then makes the call.
func seccompStep(argument string) (string, error) {
	a := numbers(argument)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(a[1])},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "", err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return "", errno
	}
	return callStep(argument)
}

// compatStep makes 32-bit calls "times number" without arguments through interrupt
// 0x80, which a 64-bit process may use too.
func compatStep(argument string) (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", errors.New("only amd64 has interrupt 0x80")
	}
	a := numbers(argument)
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return "", err
	}
	// mov $number, %eax; int $0x80; ret
	copy(code, []byte{0xb8, byte(a[1]), byte(a[1] >> 8), 0, 0, 0xcd, 0x80, 0xc3})
	// A Go function is a pointer to a pointer to its code.
	entry := unsafe.Pointer(&code[0])
	closure := unsafe.Pointer(&entry)
	call := *(*func())(unsafe.Pointer(&closure))
	for range a[0] {
		call()
	}
	return "", nil
}
