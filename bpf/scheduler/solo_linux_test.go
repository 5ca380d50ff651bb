package scheduler

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/testutil"
)

// What a solo can be told to do.
const (
	opSleep = iota + 1
	opYield
	opSpin
	opMigrate
	opVfork
)

func TestMain(m *testing.M) {
	var solos []*soloPipes
	testutil.ServeWorker(map[string]func(string) (string, error){
		// "fork" answers with the new solo's number and pid.
		"fork": func(string) (string, error) {
			s, pid, err := forkSolo()
			solos = append(solos, s)
			return fmt.Sprintf("%d %d", len(solos)-1, pid), err
		},
		// "begin solo op times argument cpu" and "wait solo": cpu -1 is any.
		"begin": func(argument string) (string, error) {
			var order soloOrder
			var i int
			if _, err := fmt.Sscan(argument, &i, &order.Op, &order.Times, &order.Argument, &order.CPU); err != nil {
				return "", err
			}
			return "", binary.Write(solos[i].orders, binary.NativeEndian, order)
		},
		"wait": func(argument string) (string, error) {
			i, err := strconv.Atoi(argument)
			if err != nil {
				return "", err
			}
			_, err = solos[i].done.Read(make([]byte, 8))
			return "", err
		},
	})
	os.Exit(m.Run())
}

type soloOrder struct{ Op, Times, Argument, CPU int64 }

type soloPipes struct{ orders, done *os.File }

// forkSolo forks a process of one thread that Go's runtime knows nothing of, so that
// it does what it is told and nothing else: it sleeps reading orders, carries one
// out, answers, and sleeps again.
func forkSolo() (*soloPipes, int, error) {
	var orders, done [2]int
	if err := errors.Join(unix.Pipe2(orders[:], unix.O_CLOEXEC), unix.Pipe2(done[:], unix.O_CLOEXEC)); err != nil {
		return nil, 0, err
	}
	pid := rawFork(uintptr(orders[0]), uintptr(orders[1]), uintptr(done[1]), new(soloOrder), new([2]int64))
	if pid < 0 {
		return nil, 0, errors.New("fork failed")
	}
	unix.Close(orders[0])
	unix.Close(done[1])
	return &soloPipes{os.NewFile(uintptr(orders[1]), "orders"), os.NewFile(uintptr(done[0]), "done")}, pid, nil
}

//go:nosplit
//go:norace
//go:noinline
func rawFork(in, inWriter, out uintptr, order *soloOrder, scratch *[2]int64) int {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	if pid != 0 {
		return int(pid)
	}
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, inWriter, 0, 0)
	for {
		n, _, _ := unix.RawSyscall(unix.SYS_READ, in, uintptr(unsafe.Pointer(order)), unsafe.Sizeof(*order))
		if n != unsafe.Sizeof(*order) {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		if order.CPU >= 0 {
			scratch[0] = 1 << order.CPU
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, 8, uintptr(unsafe.Pointer(scratch)))
		}
		if order.Op == opSpin {
			spin(order.Argument, scratch)
		} else {
			for i := int64(0); i < order.Times; i++ {
				once(order, i, scratch)
			}
		}
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, out, uintptr(unsafe.Pointer(order)), 8)
	}
}

//go:nosplit
//go:norace
//go:noinline
func once(order *soloOrder, i int64, scratch *[2]int64) {
	switch order.Op {
	case opSleep:
		scratch[0], scratch[1] = 0, order.Argument
		_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(scratch)), 0, 0, 0)
	case opYield:
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	case opMigrate:
		scratch[0] = 1 << (i & 1)
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, 8, uintptr(unsafe.Pointer(scratch)))
	case opVfork:
		vfork(order, scratch)
	}
}

// vfork waits, uninterruptibly, for a child that sleeps and exits.
//
//go:nosplit
//go:norace
//go:noinline
func vfork(order *soloOrder, scratch *[2]int64) {
	scratch[0], scratch[1] = 0, order.Argument
	pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 {
		_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(scratch)), 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_WAIT4, pid, 0, 0, 0, 0, 0)
}

//go:nosplit
//go:norace
//go:noinline
func spin(ns int64, now *[2]int64) {
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(now)), 0)
	for end := now[0]*1e9 + now[1] + ns; now[0]*1e9+now[1] < end; {
		_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(now)), 0)
	}
}

// solo is a process of one thread, a child of a worker.
type solo struct {
	worker *testutil.Worker
	number string
	pid    int
	before truth
}

// newSolo returns a solo that sleeps.
func newSolo(tb testing.TB, worker *testutil.Worker) *solo {
	tb.Helper()
	number, pid, _ := strings.Cut(worker.Do(tb, "fork"), " ")
	n, err := strconv.Atoi(pid)
	if err != nil {
		tb.Fatal(err)
	}
	s := &solo{worker: worker, number: number, pid: n}
	s.settle(tb)
	s.before = s.truth(tb)
	return s
}

// begin gives an order, to be carried out on a CPU (-1: any); wait waits until it is
// done and the solo sleeps again.
func (s *solo) begin(tb testing.TB, op, times int, argument time.Duration, cpu int) {
	tb.Helper()
	s.worker.Do(tb, fmt.Sprintf("begin %s %d %d %d %d", s.number, op, times, argument, cpu))
}

func (s *solo) wait(tb testing.TB) {
	tb.Helper()
	s.worker.Do(tb, "wait "+s.number)
	s.settle(tb)
}

func (s *solo) do(tb testing.TB, op, times int, argument time.Duration, cpu int) {
	tb.Helper()
	s.begin(tb, op, times, argument, cpu)
	s.wait(tb)
}

// settle waits until the solo sleeps in its read: it sits in the system call, off
// the CPU, which the kernel tells only then.
func (s *solo) settle(tb testing.TB) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", s.pid))
		if err != nil {
			tb.Fatal(err)
		}
		if strings.HasPrefix(string(call), strconv.Itoa(unix.SYS_READ)+" ") {
			return
		}
	}
	tb.Fatalf("solo %d does not come to rest", s.pid)
}

// truth is what the kernel itself says of a task.
type truth struct {
	voluntary, involuntary, migrations float64
	onCPU, runQueue                    float64 // s
}

func (s *solo) truth(tb testing.TB) truth {
	tb.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.pid, name))
		if err != nil {
			tb.Fatal(err)
		}
		return text
	}
	status, sched := read("status"), read("sched")
	var now truth
	now.voluntary = field(tb, status, "voluntary_ctxt_switches")
	now.involuntary = field(tb, status, "nonvoluntary_ctxt_switches")
	now.migrations = field(tb, sched, "se.nr_migrations")
	if _, err := fmt.Sscan(string(read("schedstat")), &now.onCPU, &now.runQueue); err != nil {
		tb.Fatal(err)
	}
	now.onCPU, now.runQueue = now.onCPU/1e9, now.runQueue/1e9
	return now
}

// field is the number in a line "name : number".
func field(tb testing.TB, text []byte, name string) float64 {
	tb.Helper()
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(string(line), ":")
		if strings.TrimSpace(key) != name {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			tb.Fatal(err)
		}
		return n
	}
	tb.Fatalf("no %s in\n%s", name, text)
	return 0
}

// grown is the truth since newSolo.
func (s *solo) grown(tb testing.TB) truth {
	tb.Helper()
	now := s.truth(tb)
	return truth{
		now.voluntary - s.before.voluntary, now.involuntary - s.before.involuntary,
		now.migrations - s.before.migrations, now.onCPU - s.before.onCPU, now.runQueue - s.before.runQueue,
	}
}
