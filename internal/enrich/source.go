//go:build linux

package enrich

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What tells containers apart: enum cgroup_source in bpf/include/settings.h.
const (
	SourceV2     uint32 = 0
	SourceMemory uint32 = 1
	SourceCPU    uint32 = 2
	SourcePIDs   uint32 = 3
)

// hierarchy is one tree of cgroups.
type hierarchy struct {
	source uint32
	// controller is its name in /proc/PID/cgroup, "" for v2.
	controller string
	// id is the kernel's number of the hierarchy, 0 for v2.
	id uint32
	// mount is the folder it is mounted at.
	mount string
}

// DetectSource finds the hierarchy of cgroups that tells containers apart, as an
// enum cgroup_source, and the folder it is mounted at below rootPath.
//
// The memory controller decides, for every runtime uses it: where it belongs to a
// v1 hierarchy, that is the one (systemd's hybrid layout mounts v2 as well, but
// without controllers), and where it belongs to v2, v2 is. If it is switched off,
// the cpu controller decides in the same way, then pids. A v2 hierarchy without any
// controller is better than nothing.
//
// It errs if none of them is mounted below rootPath/sys/fs/cgroup, or wherever the
// mount table of process 1 says.
func DetectSource(rootPath string) (source uint32, mount string, err error) {
	found, err := detect(rootPath)
	return found.source, found.mount, err
}

func detect(rootPath string) (hierarchy, error) {
	unified, v2Err := findHierarchy(rootPath, SourceV2)
	var controllers []string
	if v2Err == nil {
		text, _ := os.ReadFile(filepath.Join(unified.mount, "cgroup.controllers"))
		controllers = strings.Fields(string(text))
	}
	var errs []error
	for _, source := range []uint32{SourceMemory, SourceCPU, SourcePIDs} {
		found, err := findHierarchy(rootPath, source)
		if err == nil {
			return found, nil
		}
		errs = append(errs, err)
		if slices.Contains(controllers, controllerOf(source)) {
			return unified, nil
		}
	}
	if v2Err == nil {
		return unified, nil
	}
	return hierarchy{}, fmt.Errorf("no cgroup file system below %s: %w", rootPath, errors.Join(append(errs, v2Err)...))
}

func controllerOf(source uint32) string {
	switch source {
	case SourceMemory:
		return "memory"
	case SourceCPU:
		return "cpu"
	case SourcePIDs:
		return "pids"
	}
	return ""
}

// findHierarchy finds where the hierarchy of a source is mounted, and its number.
func findHierarchy(rootPath string, source uint32) (hierarchy, error) {
	found := hierarchy{source: source, controller: controllerOf(source)}
	if source == SourceV2 {
		for _, folder := range mountPoints(rootPath, "cgroup2", "", "", "unified") {
			if exists(folder, "cgroup.controllers") {
				found.mount = folder
				return found, nil
			}
		}
		return found, errors.New("cgroup v2 is not mounted")
	}
	text, err := ownFile(rootPath, "cgroup")
	if err != nil {
		return found, err
	}
	line, ok := cgroupLine(string(text), found.controller)
	if !ok {
		return found, fmt.Errorf("the %s controller has no cgroup v1 hierarchy", found.controller)
	}
	found.id = line.hierarchy
	usual := []string{found.controller}
	if source == SourceCPU {
		usual = append(usual, "cpu,cpuacct", "cpuacct,cpu")
	}
	for _, folder := range mountPoints(rootPath, "cgroup", found.controller, usual...) {
		if exists(folder, "cgroup.procs") {
			found.mount = folder
			return found, nil
		}
	}
	return found, fmt.Errorf("the %s controller's cgroup v1 hierarchy is not mounted", found.controller)
}

func exists(folder, name string) bool {
	_, err := os.Stat(filepath.Join(folder, name))
	return err == nil
}

// ownFile reads a file of process 1, or of this process where that is forbidden.
func ownFile(rootPath, name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(rootPath, "proc/1", name))
	if err != nil {
		text, err = os.ReadFile(filepath.Join(rootPath, "proc/self", name))
	}
	if err != nil {
		return nil, fmt.Errorf("%s of process 1: %w", name, err)
	}
	return text, nil
}

// mountPoints returns the folders where a cgroup file system with the option may
// be: first those that the mount table names, then the usual ones.
func mountPoints(rootPath, kind, option string, usual ...string) []string {
	var folders []string
	table, _ := ownFile(rootPath, "mounts")
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[2] != kind {
			continue
		}
		if option == "" || slices.Contains(strings.Split(fields[3], ","), option) {
			folders = append(folders, filepath.Join(rootPath, unescapeMount(fields[1])))
		}
	}
	for _, name := range usual {
		folders = append(folders, filepath.Join(rootPath, "sys/fs/cgroup", name))
	}
	return folders
}

// unescapeMount undoes the octal escapes (\040 is a space) of a mount table.
func unescapeMount(path string) string {
	var text strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if c, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				text.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		text.WriteByte(path[i])
	}
	return text.String()
}

// membership is a line of /proc/PID/cgroup.
type membership struct {
	hierarchy uint32
	path      string
}

// cgroupLine finds the line of a controller in the text of /proc/PID/cgroup; ""
// is v2's. The path may hold colons.
func cgroupLine(text, controller string) (membership, bool) {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		id, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil || (controller == "") != (id == 0) {
			continue
		}
		if controller == "" || slices.Contains(strings.Split(fields[1], ","), controller) {
			return membership{hierarchy: uint32(id), path: fields[2]}, true
		}
	}
	return membership{}, false
}
