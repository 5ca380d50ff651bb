//go:build linux

package enrich

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"otelcol-ebpf/internal/load"
)

func TestStartClose(t *testing.T) {
	requireBPF(t)
	loader, _ := newLoader(t)
	ignore := goleak.IgnoreCurrent()
	unused := New(Options{})
	if err := unused.Close(); err != nil {
		t.Errorf("close before start: %v", err)
	}
	for range 3 {
		i := New(Options{})
		if err := i.Start(t.Context(), loader); err != nil {
			t.Fatal(err)
		}
		if i.Degraded() != nil {
			t.Fatal(i.Degraded())
		}
		for range 2 {
			if err := i.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		// Unknown ids are still answered.
		if i.Container(1<<60) != i.Host() {
			t.Error("an id that does not exist is not the host's")
		}
		if lost, err := i.Lost(); lost != 0 || err != nil {
			t.Errorf("lost after close: %d, %v", lost, err)
		}
	}
	goleak.VerifyNone(t, ignore)
}

// Without the programs there are still walks of cgroupfs.
func TestDegraded(t *testing.T) {
	requireBPF(t)
	_, mount := newLoader(t)
	ignore := goleak.IgnoreCurrent()
	i := New(Options{})
	if err := i.Start(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if i.Degraded() == nil {
		t.Fatal("not degraded without a loader")
	}
	container := strings.Repeat("d", hexID)
	wantContainer(t, i.Container(makeCgroup(t, mount, "docker/"+container)), container, "")
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, ignore)
}

// Every shape of path, made as a folder, comes back through each of the ways that
// an id is found.
func TestCgroupShapes(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	hierarchies := map[string]hierarchy{}
	for _, source := range []uint32{SourceV2, SourceMemory, SourceCPU, SourcePIDs} {
		if found, err := findHierarchy("/", source); err == nil {
			name := found.controller + " " + found.mount
			hierarchies[name] = found
		}
	}
	t.Logf("in use: %s", mount)
	for name, tree := range hierarchies {
		settings := loader.Settings()
		settings.CgroupSource = tree.source
		t.Run(name+" events", func(t *testing.T) {
			i := started(t, Options{}, load.New(settings))
			onlyEvents(i)
			checkShapes(t, i, tree.mount)
			if lost, err := i.Lost(); lost != 0 || err != nil {
				t.Errorf("lost %d events, %v", lost, err)
			}
		})
		t.Run(name+" handles", func(t *testing.T) {
			i := New(Options{})
			i.hierarchy = tree
			i.cgroups.use(tree.mount)
			if !i.cgroups.handles {
				t.Skip("opening cgroups by id is missing")
			}
			i.cgroups.lastScan = time.Now().Add(time.Hour)
			checkShapes(t, i, tree.mount)
		})
		t.Run(name+" scan", func(t *testing.T) {
			i := New(Options{})
			i.cgroups.use(tree.mount)
			onlyScans(i)
			makeShapes(t, tree.mount)
			checkShapes(t, i, tree.mount)
		})
	}
}

// makeShapes makes a folder for each case that one can be made for.
func makeShapes(t *testing.T, mount string) map[uint64]pathCase {
	t.Helper()
	made := make(map[uint64]pathCase)
	for _, test := range pathCases(t) {
		if !strings.Contains(test.path, "..") && test.path == filepath.Clean("/"+test.path) {
			made[makeCgroup(t, mount, test.path)] = test
		}
	}
	return made
}

func checkShapes(t *testing.T, i *Identity, mount string) {
	t.Helper()
	made := makeShapes(t, mount)
	for id, test := range made {
		wantContainer(t, i.Container(id), test.container, test.pod)
		want := filepath.Join("/", scratchName(), test.path)
		if path, ok := i.Path(id); !ok || path != want {
			t.Errorf("path of %d: %q, want %q", id, path, want)
		}
	}
	if len(made) < 50 || i.Unknown() != 0 {
		t.Errorf("%d cgroups were made, %d lookups failed", len(made), i.Unknown())
	}
	removeCgroups(mount)
}

// Cgroups inside one container share its resource, and so does the container when
// it is started again: the path is the old one, the id is not.
func TestOnePointerPerContainer(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	i := started(t, Options{Scope: ScopeContainer, Grace: 50 * time.Millisecond}, loader)
	onlyEvents(i)
	container := strings.Repeat("a", hexID)
	path := "docker/" + container
	id := makeCgroup(t, mount, path)
	inner := makeCgroup(t, mount, path+"/system.slice/foo.service")
	resource := i.Container(id)
	wantContainer(t, resource, container, "")
	if i.Container(inner) != resource || i.Resource(inner) != resource {
		t.Error("a cgroup inside the container has another resource")
	}
	if i.Gone(id) {
		t.Error("gone while it exists")
	}
	removeCgroups(mount)
	removed := time.Now()
	eventually(t, "the removed cgroup is gone", func() bool { return i.Gone(id) && i.Gone(inner) })
	if took := time.Since(removed); took < 45*time.Millisecond {
		t.Errorf("gone after %v, before the grace period", took)
	}
	if i.Container(id) != resource {
		t.Error("the removed container lost its name")
	}
	again := makeCgroup(t, mount, path)
	if again == id {
		t.Fatalf("the kernel gave out the id %d twice", id)
	}
	if i.Container(again) != resource || i.Gone(again) {
		t.Error("the container that was started again has another resource, or is gone")
	}
}

// More cgroups than there is room for are forgotten and found again, and those in
// use keep their resource.
func TestCgroupsAreBounded(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	i := started(t, Options{MaxCgroups: 5}, loader)
	if !i.cgroups.handles {
		t.Skip("opening cgroups by id is missing")
	}
	used := strings.Repeat("f", hexID)
	id := makeCgroup(t, mount, "docker/"+used)
	resource := i.Container(id)
	ids := make(map[uint64]string)
	for n := range 40 {
		container := fmt.Sprintf("%064x", n)
		other := makeCgroup(t, mount, "docker/"+container)
		ids[other] = container
		// Waits for the event: what is not used while five others are made is forgotten.
		i.Container(other)
		if i.Container(id) != resource {
			t.Fatalf("after %d others, the container has another resource", n+1)
		}
	}
	if other := i.Container(makeCgroup(t, mount, "docker/"+used+"/inner")); other != resource {
		t.Error("a new cgroup of the container has another resource")
	}
	for id, container := range ids {
		wantContainer(t, i.Container(id), container, "")
	}
	i.cgroups.mu.Lock()
	defer i.cgroups.mu.Unlock()
	if i.cgroups.known.len() > 5 || i.cgroups.resources.len() > 5 || i.cgroups.unknown.len() > 5 || i.Unknown() != 0 {
		t.Errorf("%d cgroups, %d resources, %d unknown ids are kept; %d lookups failed", i.cgroups.known.len(),
			i.cgroups.resources.len(), i.cgroups.unknown.len(), i.Unknown())
	}
}

// A cgroup that nobody told about, and that is gone when it is asked for.
func TestUnknownCgroup(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	id := makeCgroup(t, mount, "docker/"+strings.Repeat("e", hexID))
	removeCgroups(mount)
	for name, limit := range map[string]func(*Identity){"handles": func(*Identity) {}, "scan": onlyScans} {
		t.Run(name, func(t *testing.T) {
			i := started(t, Options{Scope: ScopeContainer, Grace: 20 * time.Millisecond}, loader)
			limit(i)
			for range 3 {
				if i.Container(id) != i.Host() {
					t.Error("a cgroup that does not exist is not the host's")
				}
			}
			if i.Unknown() != 3 {
				t.Errorf("%d unknown, want 3", i.Unknown())
			}
			eventually(t, "an id that the kernel denies is gone", func() bool { return i.Gone(id) })
			if i.Gone(rootInode) || i.Gone(0) || i.Gone(load.OverflowScope) {
				t.Error("the root, nothing, or the overflow series is gone")
			}
			if i.Resource(load.OverflowScope) != i.Host() {
				t.Error("the overflow series is not the host's")
			}
		})
	}
}

// The removal is noticed even if the kernel's event was lost.
func TestLostRemoval(t *testing.T) {
	requireBPF(t)
	_, mount := newLoader(t)
	for name, limit := range map[string]func(*Identity){"handles": func(*Identity) {}, "scan": onlyScans} {
		t.Run(name, func(t *testing.T) {
			i := started(t, Options{Scope: ScopeContainer, Grace: 20 * time.Millisecond}, nil)
			limit(i)
			id := makeCgroup(t, mount, "docker/"+strings.Repeat("f", hexID))
			eventually(t, "the cgroup is found", func() bool { return i.Container(id) != i.Host() })
			removeCgroups(mount)
			eventually(t, "the cgroup is gone", func() bool { return i.Gone(id) })
		})
	}
}

// What the kernel's programs take for the identity of a process is what we know
// under that id.
func TestKernelIDs(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	i := started(t, Options{Scope: ScopeProcess}, loader)
	onlyEvents(i)
	heard := startExecs(t, loader)
	container := strings.Repeat("b", hexID)
	id := makeCgroup(t, mount, "kubepods/burstable/pod00000000-1111-2222-3333-444444444444/"+container)
	procs := filepath.Join(mount, scratchName(), "kubepods/burstable/pod00000000-1111-2222-3333-444444444444", container, "cgroup.procs")
	command := exec.Command("/bin/sh", "-c", "echo $$ > "+procs+" && exec /bin/sleep 100")
	if err := command.Start(); err != nil {
		t.Skipf("/bin/sh is missing: %v", err)
	}
	defer func() { command.Process.Kill(); command.Wait() }()
	event := heard.named(t, "sleep")
	if event.Header.CgroupId != id {
		t.Errorf("the kernel says cgroup %d, the folder's inode is %d", event.Header.CgroupId, id)
	}
	if int(event.Tgid) != command.Process.Pid || uint32(event.ProcessId) != event.Tgid {
		t.Errorf("the kernel says pid %d, process id %#x; the pid is %d", event.Tgid, event.ProcessId, command.Process.Pid)
	}
	process, ok := i.Process(event.Tgid, event.Start)
	if !ok || process.Cgroup != id || process.Name != "sleep" || process.ParentPID != uint32(os.Getpid()) {
		t.Errorf("process: %+v, %v", process, ok)
	}
	if process.Start != event.Start/tick*tick {
		t.Errorf("/proc says it started at %d, the kernel %d", process.Start, event.Start)
	}
	resource := i.Resource(event.ProcessId)
	got := attributes(resource)
	created, err := time.Parse(time.RFC3339Nano, got["process.creation.time"].(string))
	if err != nil || time.Since(created) < 0 || time.Since(created) > time.Minute {
		t.Errorf("created at %v, %v", created, err)
	}
	if got["container.id"] != container || got["process.pid"] != int64(command.Process.Pid) ||
		got["process.parent_pid"] != int64(os.Getpid()) || got["k8s.pod.uid"] != "00000000-1111-2222-3333-444444444444" ||
		!strings.HasPrefix(got["process.executable.path"].(string), "/") || got["process.executable.name"] == "" {
		t.Errorf("resource: %v", got)
	}
	if i.Resource(event.ProcessId) != resource {
		t.Error("asked again, the process has another resource")
	}
	if i.Unknown() != 0 {
		t.Errorf("%d unknown", i.Unknown())
	}
}

// Lookups, events and the end go on at the same time.
func TestConcurrent(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	i := started(t, Options{Scope: ScopeContainer, MaxCgroups: 16, MaxProcesses: 16}, loader)
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			pid := uint32(os.Getpid())
			for n := range uint64(200) {
				i.Container(1<<40 + n)
				i.Resource(n)
				i.Gone(n)
				i.Process(pid, 0)
				i.Exec(Process{PID: uint32(n), Start: n * tick, Executable: "/bin/true"})
				i.Exit(uint32(n), n*tick, time.Time{})
				i.Fork(Process{PID: pid}, Process{PID: uint32(worker), Start: n})
			}
		})
	}
	container := strings.Repeat("c", hexID)
	for range 20 {
		wantContainer(t, i.Container(makeCgroup(t, mount, "docker/"+container)), container, "")
		removeCgroups(mount)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
}

func BenchmarkContainer(b *testing.B) {
	requireBPF(b)
	loader, mount := newLoader(b)
	i := started(b, Options{}, loader)
	id := makeCgroup(b, mount, "docker/"+strings.Repeat("a", hexID))
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			i.Container(id)
		}
	})
	b.Run("unknown again", func(b *testing.B) {
		for b.Loop() {
			i.Container(1 << 40)
		}
	})
	b.Run("unknown", func(b *testing.B) {
		for n := uint64(1 << 40); b.Loop(); n++ {
			i.Container(n)
		}
	})
}
