//go:build linux

package enrich

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// tick is the unit of start times in /proc: USER_HZ is 100 on every architecture
// that we build for.
const tick = 10_000_000

// procfs reads processes below its folder.
type procfs struct {
	root string
}

// stat is what /proc/PID/stat says.
type stat struct {
	name   string
	parent uint32
	ticks  uint64
	// dead: no thread runs any more, the parent just did not ask for the exit code.
	dead bool
}

// stat reads /proc/PID/stat; the error is fs.ErrNotExist if there is no such
// process.
func (p procfs) stat(pid uint32) (stat, error) {
	text, err := os.ReadFile(p.file(pid, "stat"))
	if err != nil {
		return stat{}, vanished(err)
	}
	return parseStat(text)
}

func (p procfs) file(pid uint32, name string) string {
	return filepath.Join(p.root, strconv.FormatUint(uint64(pid), 10), name)
}

// vanished turns the error of a read from a process that exits meanwhile into
// fs.ErrNotExist.
func vanished(err error) error {
	// The process went between the open and the read.
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// parseStat reads the text of /proc/PID/stat. The name stands in parentheses and
// may hold any byte, parentheses too: the last one closes it.
func parseStat(text []byte) (stat, error) {
	open, shut := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || shut < open {
		return stat{}, errors.New("process stat without a name")
	}
	fields := strings.Fields(string(text[shut+1:]))
	// Field 3, the state, comes first here: the parent is field 4, the start 22.
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("process stat of %d fields", len(fields)+2)
	}
	parent, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		return stat{}, fmt.Errorf("process stat's parent: %w", err)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process stat's start: %w", err)
	}
	if ticks > ^uint64(0)/tick {
		return stat{}, fmt.Errorf("process stat's start: %d ticks", ticks)
	}
	// A leader may be a zombie while other threads (field 20) go on.
	dead := fields[0] == "X" || fields[0] == "Z" && (fields[17] == "0" || fields[17] == "1")
	return stat{name: string(text[open+1 : shut]), parent: uint32(parent), ticks: ticks, dead: dead}, nil
}

// parseUID reads the real user id from the text of /proc/PID/status.
func parseUID(text string) (uint32, bool) {
	for line := range strings.Lines(text) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			fields := strings.Fields(ids)
			if len(fields) == 0 {
				return 0, false
			}
			uid, err := strconv.ParseUint(fields[0], 10, 32)
			return uint32(uid), err == nil
		}
	}
	return 0, false
}

// read reads a process that is alive, and the path of its cgroup in the
// hierarchy of the controller. A file that is forbidden or missing (a kernel thread
// has no exe) leaves its field empty; if the process exits meanwhile and the pid is
// given to another one, that is noticed and an error.
func (p procfs) read(pid uint32, controller string) (Process, string, error) {
	before, err := p.stat(pid)
	if err != nil {
		return Process{}, "", err
	}
	process := Process{PID: pid, ParentPID: before.parent, Start: before.ticks * tick, Name: before.name}
	if target, err := os.Readlink(p.file(pid, "exe")); err == nil {
		process.Executable = strings.TrimSuffix(target, " (deleted)")
	}
	if text, err := os.ReadFile(p.file(pid, "status")); err == nil {
		process.UID, _ = parseUID(string(text))
	}
	var path string
	if text, err := os.ReadFile(p.file(pid, "cgroup")); err == nil {
		line, _ := cgroupLine(string(text), controller)
		path = strings.TrimSuffix(line.path, " (deleted)")
	}
	after, err := p.stat(pid)
	if err != nil {
		return Process{}, "", err
	}
	if after.ticks != before.ticks {
		return Process{}, "", fmt.Errorf("process %d was replaced while it was read: %w", pid, fs.ErrNotExist)
	}
	return process, path, nil
}

// pids lists the processes.
func (p procfs) pids() ([]uint32, error) {
	folder, err := os.Open(p.root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []uint32
	for _, name := range names {
		if pid, err := strconv.ParseUint(name, 10, 32); err == nil {
			pids = append(pids, uint32(pid))
		}
	}
	return pids, nil
}
