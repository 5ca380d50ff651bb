//go:build linux

package enrich

import (
	_ "embed"
	"strings"
	"testing"
)

//go:embed testdata/cgroup_paths.txt
var recordedPaths string

type pathCase struct {
	name, path, container, pod string
}

// pathCases reads testdata/cgroup_paths.txt.
func pathCases(tb testing.TB) []pathCase {
	tb.Helper()
	var cases []pathCase
	for line := range strings.Lines(recordedPaths) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		indented, ok := strings.CutPrefix(line, "  ")
		if !ok {
			cases = append(cases, pathCase{name: line})
			continue
		}
		current := &cases[len(cases)-1]
		key, value, _ := strings.Cut(indented, " ")
		switch key {
		case "path":
			current.path = value
		case "container":
			current.container = value
		case "pod":
			current.pod = value
		default:
			tb.Fatalf("%s: unknown key %q", current.name, key)
		}
	}
	if len(cases) < 50 {
		tb.Fatalf("%d recorded paths", len(cases))
	}
	return cases
}

func TestContainerFromPath(t *testing.T) {
	for _, test := range pathCases(t) {
		t.Run(test.name, func(t *testing.T) {
			container, pod := ContainerFromPath(test.path)
			if container != test.container || pod != test.pod {
				t.Errorf("%s:\n got container %q, pod %q\nwant container %q, pod %q",
					test.path, container, pod, test.container, test.pod)
			}
		})
	}
}

func FuzzContainerFromPath(f *testing.F) {
	for _, test := range pathCases(f) {
		f.Add(test.path)
	}
	for _, path := range []string{"", "//", "-.scope", ":", "pod", "-pod.slice", "/lxc//", "lxc.payload."} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		container, pod := ContainerFromPath(path)
		if !strings.Contains(path, container) {
			t.Errorf("container %q is not in %q", container, path)
		}
		if strings.Contains(container, "/") {
			t.Errorf("container %q of %q spans folders", container, path)
		}
		if len(pod) != 0 && len(pod) != shortHex && len(pod) != uuidLen {
			t.Errorf("pod %q of %q", pod, path)
		}
		if !strings.Contains(strings.ReplaceAll(path, "_", "-"), pod) {
			t.Errorf("pod %q is not in %q", pod, path)
		}
		// What somebody inside makes below a container still belongs to it, unless it
		// looks like a container of its own.
		if strings.HasSuffix(path, "lxc") || strings.HasSuffix(path, "lxc.payload") {
			return
		}
		if below, _ := ContainerFromPath(path + "/init.scope"); container != "" && below != container {
			t.Errorf("%q below %q is in container %q", path+"/init.scope", container, below)
		}
	})
}

func BenchmarkContainerFromPath(b *testing.B) {
	cases := pathCases(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		ContainerFromPath(cases[i%len(cases)].path)
	}
}
