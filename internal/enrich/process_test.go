//go:build linux

package enrich

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"otelcol-ebpf/internal/kernel"
)

// clock is a wall clock that stands until it is moved.
type clock struct {
	at time.Time
}

func (c *clock) now() time.Time { return c.at }

func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

// fakeIdentity has a /proc of its own, and time that stands still.
func fakeIdentity(t *testing.T, options Options, files map[string]string) (*Identity, *clock) {
	t.Helper()
	wall, err := kernel.NewClock()
	if err != nil {
		t.Fatal(err)
	}
	options.RootPath, options.Clock = fakeRoot(t, files), wall
	c := &clock{at: time.Now()}
	return newIdentity(options, c.now), c
}

// statText is the text of /proc/PID/stat.
func statText(pid uint32, name string, parent uint32, ticks uint64) string {
	return fmt.Sprintf("%d (%s) S %d 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", pid, name, parent, ticks)
}

func TestParseStat(t *testing.T) {
	for _, test := range []struct {
		text string
		want stat
		ok   bool
	}{
		{statText(7, "bash", 3, 12345), stat{"bash", 3, 12345, false}, true},
		{statText(7, "a) S 1 (b\n", 3, 12345), stat{"a) S 1 (b\n", 3, 12345, false}, true},
		{statText(7, "", 0, 0), stat{}, true},
		{strings.Replace(statText(7, "z", 3, 1), "S 3", "Z 3", 1), stat{"z", 3, 1, true}, true},
		{strings.Replace(strings.Replace(statText(7, "z", 3, 1), "S 3", "Z 3", 1), "20 0 1 0", "20 0 2 0", 1), stat{"z", 3, 1, false}, true},
		{"7 (bash) S 3", stat{}, false},
		{"7 bash S 3", stat{}, false},
		{") (", stat{}, false},
		{"", stat{}, false},
		{strings.Replace(statText(7, "x", 3, 1), "S 3", "S x", 1), stat{}, false},
		{statText(7, "x", 3, ^uint64(0)), stat{}, false},
	} {
		if got, err := parseStat([]byte(test.text)); got != test.want || (err == nil) != test.ok {
			t.Errorf("%q: %+v, %v", test.text, got, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statText(7, "a) S 1 (b\n", 3, 12345)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := parseStat(text); err == nil && got.ticks*tick/tick != got.ticks {
			t.Errorf("%q: %d ticks", text, got.ticks)
		}
	})
}

func TestParseUID(t *testing.T) {
	for text, want := range map[string]uint32{"Name:\tx\nUid:\t1000\t0\t0\t0\n": 1000, "Uid:\t0\t0\t0\t0\n": 0} {
		if got, ok := parseUID(text); got != want || !ok {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "Uid:\n", "Uid:\tx\n"} {
		if _, ok := parseUID(text); ok {
			t.Errorf("%q has a uid", text)
		}
	}
}

func TestInScope(t *testing.T) {
	// As process_id() in scope.h computes it, in 64 bits.
	scope := func(start uint64) uint64 { return 42 | start>>20<<32 }
	for _, start := range []uint64{1, tick + 1, 3*tick + 12345, 1<<52 + 7, 1<<52 - 1, 1<<60 + 99} {
		if !inScope(start, scope(start)) || !inScope(start/tick*tick, scope(start)) {
			t.Errorf("%d is not in its own scope", start)
		}
		if inScope(start, scope(start+2*tick)) || inScope(start/tick*tick, scope(start+2*tick)) {
			t.Errorf("%d is in a later one's scope", start)
		}
		for _, later := range []uint64{0, 1 << 20, 1 << 51} {
			if got := startOf(scope(start), start+later); got != start>>20<<20 {
				t.Errorf("%d read %d ns later: %d", start, later, got)
			}
		}
	}
}

// A pid that is given out again is another process, while the first one can still
// be looked up for a minute.
func TestPIDReuse(t *testing.T) {
	i, c := fakeIdentity(t, Options{}, nil)
	first, second := uint64(5*tick+17), uint64(900*tick+3)
	i.Exec(Process{PID: 42, Start: first, Executable: "/bin/first"})
	i.Exec(Process{PID: 42, Start: second, Executable: "/bin/second"})
	for start, want := range map[uint64]string{
		first: "/bin/first", second: "/bin/second", 5 * tick: "/bin/first", 0: "/bin/second",
	} {
		if got, ok := i.Process(42, start); !ok || got.Executable != want {
			t.Errorf("started at %d: %+v, %v, want %s", start, got, ok, want)
		}
	}
	if got, _ := i.Process(42, first); got.Exited.IsZero() {
		t.Error("the pid has another process, but the first one did not exit")
	}
	if _, ok := i.Process(42, 77*tick); ok {
		t.Error("a process that started at another time was found")
	}
	i.Exit(42, 0, time.Time{})
	if got, ok := i.Process(42, second); !ok || !got.Exited.Equal(c.at) {
		t.Errorf("exited: %+v, %v", got, ok)
	}
	c.pass(keepExited - time.Second)
	i.Exec(Process{PID: 43, Start: second})
	if _, ok := i.Process(42, first); !ok {
		t.Error("forgotten within a minute")
	}
	c.pass(time.Second)
	i.Exec(Process{PID: 44, Start: second})
	if _, ok := i.Process(42, first); ok || len(i.processes.byPID) != 2 {
		t.Errorf("remembered after a minute, or %d pids are left", len(i.processes.byPID))
	}
	i.Exit(99, 0, time.Time{})
	i.Exit(99, 1, time.Time{})
}

func TestForkInherits(t *testing.T) {
	i, _ := fakeIdentity(t, Options{}, nil)
	i.Exec(Process{PID: 1, Start: tick, Executable: "/bin/sh", Name: "sh", Cgroup: 5, UID: 1000})
	i.Fork(Process{PID: 1, Start: tick}, Process{PID: 2, Start: 2*tick + 5})
	want := Process{PID: 2, ParentPID: 1, Start: 2*tick + 5, Executable: "/bin/sh", Name: "sh", Cgroup: 5, UID: 1000}
	if got, ok := i.Process(2, 2*tick); !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	i.Fork(Process{PID: 2}, Process{PID: 3, Start: 3 * tick, Name: "other"})
	if got, _ := i.Process(3, 3*tick); got.Executable != "/bin/sh" || got.Name != "other" || got.ParentPID != 2 {
		t.Errorf("got %+v", got)
	}
	i.Exec(Process{PID: 3, Start: 3 * tick, Executable: "/bin/ls", Name: "ls", UID: 1000})
	if got, _ := i.Process(3, 3*tick); got.Executable != "/bin/ls" || got.Name != "ls" || got.ParentPID != 2 || got.Cgroup != 5 {
		t.Errorf("after exec: %+v", got)
	}
	// Of an unknown parent nothing is inherited, so /proc is asked.
	i.Fork(Process{PID: 77}, Process{PID: 4, Start: 4 * tick})
	if got, ok := i.Process(4, 4*tick); !ok || got.Executable != "" || got.ParentPID != 77 {
		t.Errorf("of an unknown parent: %+v, %v", got, ok)
	}
}

func TestProcessesAreBounded(t *testing.T) {
	i, _ := fakeIdentity(t, Options{MaxProcesses: 10, Scope: ScopeProcess}, nil)
	for n := range uint64(1000) {
		i.Exec(Process{PID: uint32(n % 300), Start: n * tick, Executable: "/bin/true"})
		i.Resource(n)
		if n%2 == 0 {
			i.Exit(uint32(n%300), n*tick, time.Time{})
		}
	}
	keys := 0
	for _, of := range i.processes.byPID {
		keys += len(of)
	}
	if i.processes.known.len() != 10 || keys != 10 || i.strays.known.len() > 10 {
		t.Errorf("%d processes, %d keys, %d strays", i.processes.known.len(), keys, i.strays.known.len())
	}
}

// What is missing is read from /proc, as long as it is the same process.
func TestProcFallback(t *testing.T) {
	i, c := fakeIdentity(t, Options{Scope: ScopeProcess}, map[string]string{
		"proc/42/stat":   statText(42, "worker", 7, 500),
		"proc/42/status": "Name:\tworker\nUid:\t33\t33\t33\t33\n",
		"proc/43/status": "a process without stat",
	})
	if err := os.Symlink("/usr/bin/worker (deleted)", filepath.Join(i.proc.root, "42/exe")); err != nil {
		t.Fatal(err)
	}
	want := Process{PID: 42, ParentPID: 7, Start: 500 * tick, Executable: "/usr/bin/worker", Name: "worker", UID: 33}
	for _, start := range []uint64{0, 500 * tick, 500*tick + 9_999_999} {
		if got, ok := i.Process(42, start); !ok || got != want {
			t.Errorf("started at %d: %+v, %v", start, got, ok)
		}
	}
	for _, start := range []uint64{499 * tick, 501 * tick} {
		if _, ok := i.Process(42, start); ok {
			t.Errorf("the process started at %d was found", start)
		}
	}
	for _, pid := range []uint32{43, 44} {
		if got, ok := i.Process(pid, 0); ok {
			t.Errorf("pid %d: %+v", pid, got)
		}
	}
	scope := uint64(42) | (500*tick+5_000_000)>>20<<32
	got := attributes(i.Resource(scope))
	if got["process.executable.name"] != "worker" || got["process.parent_pid"] != int64(7) || i.Gone(scope) {
		t.Errorf("resource: %v", got)
	}
	checkProcGone(t, i, c, scope)
}

// checkProcGone replaces pid 42 by another process without telling.
func checkProcGone(t *testing.T, i *Identity, c *clock, scope uint64) {
	t.Helper()
	text := statText(42, "next", 7, 9000)
	if err := os.WriteFile(i.proc.file(42, "stat"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, false, true} {
		// Noticed at the second look, a grace period after the first; gone at the third.
		if got := i.Gone(scope); got != want {
			t.Errorf("gone: %v, want %v", got, want)
		}
		c.pass(defaultGrace)
	}
	if got := attributes(i.Resource(scope)); got["process.executable.name"] != "worker" {
		t.Errorf("the exited process: %v", got)
	}
}

// A process that nobody saw has one resource, made from its id, and is gone when
// /proc has denied it for a grace period.
func TestStrayProcess(t *testing.T) {
	i, c := fakeIdentity(t, Options{Scope: ScopeProcess}, nil)
	start := kernel.Boot() - 1_000_000_000
	scope := uint64(42) | start>>20<<32
	resource := i.Resource(scope)
	got := attributes(resource)
	created, err := time.Parse(time.RFC3339Nano, got["process.creation.time"].(string))
	if age := time.Since(created); err != nil || age < time.Second || age > 2*time.Second {
		t.Errorf("created at %v, %v", created, err)
	}
	if got["process.pid"] != int64(42) || len(got) != 2 || i.Unknown() != 1 {
		t.Errorf("resource: %v, %d unknown", got, i.Unknown())
	}
	if i.Resource(scope) != resource || i.Gone(scope) {
		t.Error("another resource, or gone at once")
	}
	c.pass(defaultGrace)
	if !i.Gone(scope) {
		t.Error("not gone after the grace period")
	}
	// It is known after all.
	i.Exec(Process{PID: 42, Start: start, Executable: "/bin/late"})
	if got := attributes(i.Resource(scope)); got["process.executable.path"] != "/bin/late" || i.Gone(scope) {
		t.Errorf("resource: %v", got)
	}
	i.Exit(42, start, c.at)
	if i.Gone(scope) {
		t.Error("gone as soon as it exits")
	}
	c.pass(defaultGrace)
	if !i.Gone(scope) {
		t.Error("not gone after the exit")
	}
}

// Another program is another resource, the same one is not.
func TestExecChangesResource(t *testing.T) {
	i, _ := fakeIdentity(t, Options{Scope: ScopeProcess}, nil)
	start := uint64(77 * tick)
	scope := uint64(42) | start>>20<<32
	i.Exec(Process{PID: 42, Start: start, Executable: "/bin/sh"})
	shell := i.Resource(scope)
	i.Exec(Process{PID: 42, Start: start, Executable: "/bin/sh"})
	if i.Resource(scope) != shell {
		t.Error("the same program has another resource")
	}
	i.Exec(Process{PID: 42, Start: start, Executable: "/bin/ls"})
	if got := attributes(i.Resource(scope)); got["process.executable.name"] != "ls" {
		t.Errorf("resource: %v", got)
	}
}

// The processes of this host are known after the start, and stay the same ones.
func TestSeed(t *testing.T) {
	if _, _, err := DetectSource("/"); err != nil {
		t.Skip(err)
	}
	// Not the child of a shell: an own process of a known age.
	command := exec.Command("/proc/self/exe", "-test.run=^TestSleeper$")
	command.Env = append(os.Environ(), "ENRICH_SLEEP=1")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { command.Process.Kill(); command.Wait() }()
	i := started(t, Options{}, nil)
	i.proc.root = t.TempDir() // from the cache alone
	for _, pid := range []int{os.Getpid(), command.Process.Pid} {
		got, ok := i.Process(uint32(pid), 0)
		own, _ := os.Executable()
		if !ok || got.Executable != own && pid == os.Getpid() || got.UID != uint32(os.Getuid()) || got.Start == 0 {
			t.Errorf("pid %d: %+v, %v", pid, got, ok)
		}
		if path, ok := i.Path(got.Cgroup); got.Cgroup == 0 || !ok {
			t.Errorf("pid %d is in cgroup %d, %q", pid, got.Cgroup, path)
		}
	}
	if got, ok := i.Process(2, 0); ok && (got.Name != "kthreadd" || got.Executable != "") && got.ParentPID == 0 {
		t.Errorf("kthreadd: %+v", got)
	}
}

// TestSleeper is TestSeed's child.
func TestSleeper(t *testing.T) {
	if os.Getenv("ENRICH_SLEEP") == "" {
		return
	}
	time.Sleep(time.Minute)
}

// Processes that vanish while they are read are errors of one kind, and nothing
// of them stays.
func TestVanishingProcesses(t *testing.T) {
	i := New(Options{})
	found := 0
	for range 300 {
		command := exec.Command("/proc/self/exe", "-test.run=^$")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		pid := uint32(command.Process.Pid)
		done := make(chan struct{})
		go func() { command.Wait(); close(done) }()
		for reading := true; reading; {
			select {
			case <-done:
				reading = false
			default:
			}
			_, _, err := i.proc.read(pid, "")
			switch {
			case err == nil:
				found++
			case !errors.Is(err, fs.ErrNotExist):
				t.Fatal(err)
			}
		}
		if found > 2000 {
			break
		}
	}
	if found == 0 {
		t.Error("no process was read")
	}
	if got, ok := i.Process(1<<31-1, 0); ok {
		t.Errorf("%+v", got)
	}
}

func BenchmarkReadProcess(b *testing.B) {
	i := New(Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.readProcess(uint32(os.Getpid())); err != nil {
			b.Fatal(err)
		}
	}
}
