//go:build linux

package enrich

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeRoot makes a folder that holds the files; a name that ends in a slash is a
// folder.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

type sourceCase struct {
	name   string
	files  map[string]string
	source uint32
	mount  string
	id     uint32
}

func sourceCases() []sourceCase {
	const v1Line = "4:memory:/\n3:cpu,cpuacct:/\n2:pids:/\n1:name=systemd:/init.scope\n"
	return []sourceCase{
		{"pure v2", map[string]string{
			"proc/1/cgroup":                    "0::/init.scope\n",
			"proc/1/mounts":                    "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n",
			"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
		}, SourceV2, "sys/fs/cgroup", 0},
		{"pure v2 without the mount table", map[string]string{
			"proc/self/cgroup":                 "0::/\n",
			"sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
		}, SourceV2, "sys/fs/cgroup", 0},
		{"v1", map[string]string{
			"proc/1/cgroup":                     v1Line,
			"proc/1/mounts":                     "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
			"sys/fs/cgroup/memory/cgroup.procs": "1\n",
		}, SourceMemory, "sys/fs/cgroup/memory", 4},
		{"systemd hybrid", map[string]string{
			"proc/1/cgroup": v1Line + "0::/init.scope\n",
			"proc/1/mounts": "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n" +
				"cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
			"sys/fs/cgroup/memory/cgroup.procs":        "1\n",
			"sys/fs/cgroup/unified/cgroup.controllers": "\n",
		}, SourceMemory, "sys/fs/cgroup/memory", 4},
		{"v1 without memory", map[string]string{
			"proc/1/cgroup":                          "3:cpu,cpuacct:/\n2:pids:/\n",
			"proc/1/mounts":                          "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n",
			"sys/fs/cgroup/cpu,cpuacct/cgroup.procs": "1\n",
		}, SourceCPU, "sys/fs/cgroup/cpu,cpuacct", 3},
		{"v1 with pids only, in an unusual place", map[string]string{
			"proc/1/cgroup":             "2:pids:/\n",
			"proc/1/mounts":             "cgroup /my\\040cgroups cgroup rw,pids 0 0\n",
			"my cgroups/cgroup.procs":   "1\n",
			"sys/fs/cgroup/elsewhere/x": "",
		}, SourcePIDs, "my cgroups", 2},
		{"memory in v2, cpu mounted as v1", map[string]string{
			"proc/1/cgroup":                            "3:cpu:/\n0::/init.scope\n",
			"sys/fs/cgroup/cpu/cgroup.procs":           "1\n",
			"sys/fs/cgroup/unified/cgroup.controllers": "memory pids\n",
		}, SourceV2, "sys/fs/cgroup/unified", 0},
		{"v2 without controllers", map[string]string{
			"proc/1/cgroup":                    "0::/\n",
			"sys/fs/cgroup/cgroup.controllers": "",
		}, SourceV2, "sys/fs/cgroup", 0},
		{"memory's hierarchy is not mounted", map[string]string{
			"proc/1/cgroup":                   "4:memory:/\n2:pids:/\n",
			"sys/fs/cgroup/pids/cgroup.procs": "1\n",
		}, SourcePIDs, "sys/fs/cgroup/pids", 2},
	}
}

func TestDetectSource(t *testing.T) {
	for _, test := range sourceCases() {
		t.Run(test.name, func(t *testing.T) {
			root := fakeRoot(t, test.files)
			source, mount, err := DetectSource(root)
			if err != nil || source != test.source || mount != filepath.Join(root, test.mount) {
				t.Errorf("got %d, %s, %v, want %d, %s", source, mount, err, test.source, test.mount)
			}
			found, err := detect(root)
			if err != nil || found.id != test.id {
				t.Errorf("the hierarchy's number is %d, %v, want %d", found.id, err, test.id)
			}
		})
	}
}

func TestDetectSourceNone(t *testing.T) {
	for _, files := range []map[string]string{
		{},
		{"proc/1/cgroup": "4:memory:/\n"},
		{"proc/1/cgroup": "broken", "proc/1/mounts": "broken\n", "sys/fs/cgroup/": ""},
	} {
		root := fakeRoot(t, files)
		_, mount, err := DetectSource(root)
		if err == nil || mount != "" || !strings.Contains(err.Error(), "no cgroup file system below "+root) {
			t.Errorf("got %q, %v", mount, err)
		}
		if err := New(Options{RootPath: root}).Start(t.Context(), nil); err == nil {
			t.Error("started without cgroups")
		}
	}
}

// This host's own answer agrees with where its processes are.
func TestDetectSourceHere(t *testing.T) {
	source, mount, err := DetectSource("/")
	if err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	line, ok := cgroupLine(string(text), controllerOf(source))
	if !ok {
		t.Fatalf("no line for source %d in %q", source, text)
	}
	if strings.HasPrefix(line.path, "/..") {
		t.Skip("a view out of the cgroup namespace is missing")
	}
	procs, err := os.ReadFile(filepath.Join(mount, line.path, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(procs) == 0 {
		t.Errorf("source %d at %s does not hold this process (%s): %v", source, mount, line.path, err)
	}
}

func TestCgroupLine(t *testing.T) {
	const text = "12:memory:/a:b\n5:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/v2\nx:y\n-1:pids:/z\n"
	for controller, want := range map[string]membership{
		"memory": {12, "/a:b"}, "cpu": {5, "/c"}, "cpuacct": {5, "/c"}, "": {0, "/v2"}, "pids": {}, "systemd": {},
	} {
		if got, ok := cgroupLine(text, controller); got != want || ok != (want != membership{}) {
			t.Errorf("%q: %+v, %v", controller, got, ok)
		}
	}
}
