package testutil

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
)

// Cgroup is a cgroup that a test made, in the hierarchy that tells containers apart.
type Cgroup struct {
	// Dir is its folder, ID the kernel's id of it.
	Dir string
	ID  uint64
	// V2 tells that it lies in the unified hierarchy.
	V2 bool
}

// NewCgroup makes the cgroup at the path, below the hierarchy's root, and removes
// it with its parents that it made when the test ends; by then it must be empty.
func NewCgroup(tb testing.TB, path string) *Cgroup {
	tb.Helper()
	source, mount, err := enrich.DetectSource("/")
	if err != nil {
		tb.Fatal(err)
	}
	c := &Cgroup{Dir: filepath.Join(mount, path), V2: source == enrich.SourceV2}
	var made []string
	for dir := c.Dir; dir != mount; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		made = append(made, dir)
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		for _, dir := range made {
			if err := unix.Rmdir(dir); err != nil && !os.IsNotExist(err) {
				tb.Errorf("remove cgroup %s: %v", dir, err)
			}
		}
	})
	if c.V2 {
		// A cgroup has the files of the controllers that all cgroups above it pass on.
		for i := len(made) - 1; i >= 0; i-- {
			control := filepath.Join(filepath.Dir(made[i]), "cgroup.subtree_control")
			if err := os.WriteFile(control, []byte("+memory +cpu +pids"), 0o644); err != nil {
				tb.Logf("pass controllers on: %v", err)
			}
		}
	}
	var stat unix.Stat_t
	if err := unix.Stat(c.Dir, &stat); err != nil {
		tb.Fatal(err)
	}
	c.ID = stat.Ino
	return c
}

// Set writes one of the cgroup's files, v2 and v1 being its names in either version.
func (c *Cgroup) Set(tb testing.TB, v2, v1, value string) {
	tb.Helper()
	name := v1
	if c.V2 {
		name = v2
	}
	if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(value), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// Enter moves a process into the cgroup.
func (c *Cgroup) Enter(pid int) error {
	return os.WriteFile(filepath.Join(c.Dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}
