//go:build linux

package enrich

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"otelcol-ebpf/internal/load"
)

// bundle is a container of runc's whose only file is busybox.
type bundle struct {
	folder, name string
}

// newBundle writes a container that runs busybox, under a name of its own, with
// the arguments, in the scratch cgroup's folder.
func newBundle(t *testing.T, cgroup, name string, arguments ...string) bundle {
	t.Helper()
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("runc is not installed")
	}
	b := bundle{folder: t.TempDir(), name: fmt.Sprintf("%s-%d", name, os.Getpid())}
	for _, folder := range []string{"rootfs/proc", "rootfs/dev", "rootfs/sys", "rootfs/tmp"} {
		if err := os.MkdirAll(filepath.Join(b.folder, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.Open("/bin/busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	defer busybox.Close()
	binary, err := os.OpenFile(filepath.Join(b.folder, "rootfs", name), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(binary, busybox); err != nil {
		t.Fatal(err)
	}
	if err := binary.Close(); err != nil {
		t.Fatal(err)
	}
	b.runc(t, "spec", "--bundle", b.folder)
	b.configure(t, cgroup, append([]string{"/" + name}, arguments...))
	t.Cleanup(func() {
		_ = exec.Command("runc", "delete", "--force", b.name).Run()
		// runc makes the cgroup in every hierarchy, and leaves the parents.
		table, _ := os.ReadFile("/proc/self/mounts")
		for line := range strings.Lines(string(table)) {
			if fields := strings.Fields(line); strings.HasPrefix(fields[2], "cgroup") {
				removeCgroups(fields[1])
			}
		}
	})
	return b
}

func (b bundle) configure(t *testing.T, cgroup string, arguments []string) {
	t.Helper()
	file := filepath.Join(b.folder, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	process := config["process"].(map[string]any)
	process["terminal"], process["args"] = false, arguments
	config["linux"].(map[string]any)["cgroupsPath"] = filepath.Join("/", scratchName(), cgroup)
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b bundle) runc(t *testing.T, arguments ...string) {
	t.Helper()
	// Not a pipe: the container would keep it open.
	output, err := os.Create(filepath.Join(b.folder, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	command := exec.Command("runc", arguments...)
	command.Stdout, command.Stderr = output, output
	if err := command.Run(); err != nil {
		text, _ := os.ReadFile(output.Name())
		t.Fatalf("runc %s: %v: %s", arguments[0], err, text)
	}
}

func (b bundle) start(t *testing.T) {
	b.runc(t, "run", "--detach", "--bundle", b.folder, b.name)
}

func (b bundle) remove(t *testing.T) {
	b.runc(t, "delete", "--force", b.name)
}

const testPod = "5f3c1b2a-0d4e-4c6f-8a9b-123456789abc"

// Real containers under the paths of different runtimes, by all ways to name them.
func TestContainers(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	id := strings.Repeat("0123456789abcdef", 4)
	underscored := strings.ReplaceAll(testPod, "-", "_")
	for _, test := range []pathCase{
		{"docker", "docker/" + id, id, ""},
		{"containerd", "kubepods/burstable/pod" + testPod + "/" + id, id, testPod},
		{"cri-o", "kubepods.slice/kubepods-pod" + underscored + ".slice/crio-" + id + ".scope", id, testPod},
		{"podman", "machine.slice/libpod-" + id + ".scope/container", id, ""},
		{"podman_conmon", "machine.slice/libpod-conmon-" + id + ".scope", "", ""},
		{"lxc", "lxc/web", "web", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBundle(t, test.path, "busybox-"+test.name[:3], "sleep", "1000")
			i := started(t, Options{Scope: ScopeContainer, Grace: 50 * time.Millisecond}, loader)
			onlyEvents(i)
			heard := startExecs(t, loader)
			b.start(t)
			event := heard.named(t, "busybox-"+test.name[:3])
			folder, err := inode(filepath.Join(mount, scratchName(), test.path))
			if err != nil || event.Header.CgroupId != folder {
				t.Errorf("the kernel says cgroup %d, the folder is %d, %v", event.Header.CgroupId, folder, err)
			}
			resource := i.Resource(event.Header.CgroupId)
			wantContainer(t, resource, test.container, test.pod)
			process, ok := i.Process(event.Tgid, event.Start)
			if !ok || process.Cgroup != folder || process.Executable != "/busybox-"+test.name[:3] {
				t.Errorf("process: %+v, %v", process, ok)
			}
			b.remove(t)
			eventually(t, "the removed container is gone", func() bool { return i.Gone(folder) })
			checkAgain(t, i, b, filepath.Join(mount, scratchName(), test.path), folder)
			if i.Unknown() != 0 {
				t.Errorf("%d unknown", i.Unknown())
			}
		})
	}
}

// checkAgain starts the container again: the path is the same, its id is another
// one, the resource is the old one.
func checkAgain(t *testing.T, i *Identity, b bundle, folder string, before uint64) {
	t.Helper()
	b.start(t)
	after, err := inode(folder)
	if err != nil || after == before {
		t.Fatalf("the new folder is %d like the old one, %v", after, err)
	}
	if i.Container(after) != i.Container(before) || i.Gone(after) || !i.Gone(before) {
		t.Error("the container that was started again has another resource")
	}
	b.remove(t)
}

// Containers that end before anybody looks are named all the same, from what the
// kernel told while they were made.
func TestShortContainers(t *testing.T) {
	requireBPF(t)
	loader, mount := newLoader(t)
	i := started(t, Options{Scope: ScopeContainer}, loader)
	onlyEvents(i)
	heard := startExecs(t, loader)
	for n := range 5 {
		id := strings.Repeat(fmt.Sprint(n), hexID)
		name := fmt.Sprintf("busybox-%d", n)
		path := "kubepods/besteffort/pod" + testPod + "/" + id
		b := newBundle(t, path, name, "true")
		b.runc(t, "run", "--bundle", b.folder, b.name)
		if _, err := os.Stat(filepath.Join(mount, scratchName(), path)); !os.IsNotExist(err) {
			t.Fatalf("the container left its cgroup: %v", err)
		}
		wantContainer(t, i.Resource(heard.named(t, name).Header.CgroupId), id, testPod)
	}
	if i.Unknown() != 0 {
		t.Errorf("%d unknown", i.Unknown())
	}
}

// With scope process, what runs in a container has the container's attributes too,
// and is gone when it exits, though nobody tells that it did.
func TestContainerProcess(t *testing.T) {
	requireBPF(t)
	loader, _ := newLoader(t)
	settings := loader.Settings()
	settings.Scope = ScopeProcess
	loader = load.New(settings)
	id := strings.Repeat("9", hexID)
	b := newBundle(t, "docker/"+id, "busybox-p", "sleep", "1000")
	i := started(t, Options{Scope: ScopeProcess, Grace: 50 * time.Millisecond}, loader)
	heard := startExecs(t, loader)
	b.start(t)
	event := heard.named(t, "busybox-p")
	resource := i.Resource(event.ProcessId)
	got := attributes(resource)
	if got["container.id"] != id || got["process.executable.path"] != "/busybox-p" ||
		got["process.executable.name"] != "busybox-p" || got["process.pid"] != int64(event.Tgid) {
		t.Errorf("resource: %v", got)
	}
	if i.Gone(event.ProcessId) {
		t.Error("gone while it is alive")
	}
	b.remove(t)
	eventually(t, "the process is gone", func() bool { return i.Gone(event.ProcessId) })
	if i.Resource(event.ProcessId) != resource {
		t.Error("the exited process has another resource")
	}
}
