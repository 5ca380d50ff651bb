//go:build linux

// Package enrich tells whose an observation is: from a cgroup id to the container
// and the pod, and from a pid to the process.
package enrich

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
)

// Scopes, as in enum scope of bpf/include/settings.h.
const (
	ScopeHost      uint32 = 0
	ScopeContainer uint32 = 1
	ScopeProcess   uint32 = 2
)

// What a zero Option means.
const (
	defaultMaxProcesses = 16384
	defaultMaxCgroups   = 8192
	defaultGrace        = 5 * time.Second
)

// verifyCgroups is how often the existence of a cgroup is checked whose removal
// the kernel reports; without those reports it is checked once per grace period.
const verifyCgroups = 30 * time.Second

// Options of an Identity; the zero value of each field is its default.
type Options struct {
	// RootPath is where the host's root is mounted: "/" by default. The host's
	// processes are looked up in RootPath/proc, its cgroups in RootPath/sys/fs/cgroup.
	RootPath string
	// Scope says what Resource and Gone take for an id: ScopeHost, ….
	Scope uint32
	// MaxProcesses and MaxCgroups bound what is remembered, the exited and
	// removed ones included; those are forgotten first.
	MaxProcesses, MaxCgroups int
	// Grace is how long after its end a container or a process may still be counted
	// under by a task that is on its way out.
	Grace time.Duration
	// Clock turns start times into wall-clock time. By default the Identity has
	// one of its own.
	Clock  *kernel.Clock
	Logger *zap.Logger
}

func (o Options) withDefaults() Options {
	if o.RootPath == "" {
		o.RootPath = "/"
	}
	if o.MaxProcesses <= 0 {
		o.MaxProcesses = defaultMaxProcesses
	}
	if o.MaxCgroups <= 0 {
		o.MaxCgroups = defaultMaxCgroups
	}
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return o
}

// Identity knows the host's containers and processes. Apart from Start, which
// comes before everything but New, it is safe for concurrent use.
type Identity struct {
	final     atomic.Bool
	options   Options
	now       func() time.Time
	host      *otlp.Resource
	hierarchy hierarchy
	cgroups   *cgroups
	proc      procfs
	processes *processes
	strays    strays
	unknown   atomic.Uint64

	mu       sync.Mutex
	tracker  *tracker
	closed   bool
	degraded error
}

// New returns an Identity that touches nothing until Start, and calls everything
// the host's.
func New(options Options) *Identity {
	return newIdentity(options, time.Now)
}

func newIdentity(options Options, now func() time.Time) *Identity {
	options = options.withDefaults()
	host := otlp.NewResource()
	return &Identity{
		options:   options,
		now:       now,
		host:      host,
		cgroups:   newCgroups(host, options.MaxCgroups, now),
		proc:      procfs{root: filepath.Join(options.RootPath, "proc")},
		processes: newProcesses(options.MaxProcesses, now),
		strays:    newStrays(options.MaxProcesses, now),
	}
}

// Start learns the cgroups and the processes that exist, and follows the cgroups
// that come and go. The hierarchy is the one that the loader's programs use. A nil
// loader, or programs that the kernel refuses, leave walks of cgroupfs when an
// unknown id turns up; Degraded tells why. It errs, with everything released, only
// if the hierarchy is not mounted. The context bounds the start alone.
func (i *Identity) Start(ctx context.Context, loader *load.Loader) error {
	var err error
	if loader != nil {
		i.hierarchy, err = findHierarchy(i.options.RootPath, loader.Settings().CgroupSource)
	} else {
		i.hierarchy, err = detect(i.options.RootPath)
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if i.options.Clock == nil {
		if i.options.Clock, err = kernel.NewClock(); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	}
	i.cgroups.use(i.hierarchy.mount)
	if !i.cgroups.whole {
		i.options.Logger.Warn("the mounted cgroup file system shows a part of the hierarchy, as in a cgroup "+
			"namespace: containers that ran before the start may remain without a name",
			zap.String("mount", i.hierarchy.mount))
	}
	i.follow(loader)
	// The walk comes after the attachment: what is made meanwhile is seen twice, and
	// nothing is missed.
	i.cgroups.search.Lock()
	i.cgroups.scan(0)
	i.cgroups.search.Unlock()
	if err := i.seed(ctx); err != nil {
		return errors.Join(fmt.Errorf("identity: %w", err), i.Close())
	}
	return nil
}

// follow starts the tracker, or notes why there is none.
func (i *Identity) follow(loader *load.Loader) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if loader == nil {
		i.degraded = errors.New("no loader for the cgroup programs")
		return
	}
	i.tracker, i.degraded = startTracker(loader, i.hierarchy.id, i.handle)
	if i.degraded != nil {
		i.options.Logger.Warn("containers that live for less than a second may remain without a name",
			zap.Error(i.degraded))
		return
	}
	i.cgroups.drain = i.tracker.drain
}

// handle runs in the tracker's goroutine. It must not look for anything: whoever
// looks waits for this goroutine.
func (i *Identity) handle(event cgroupEvent) {
	switch {
	case event.removed:
		i.cgroups.remove(event.id)
	case event.path != "":
		i.cgroups.add(event.id, event.path)
	}
}

// seed reads the processes that exist. Some may exit while they are read.
func (i *Identity) seed(ctx context.Context) error {
	pids, err := i.proc.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids[:min(len(pids), i.options.MaxProcesses)] {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, _ = i.readProcess(pid)
	}
	return nil
}

// Close stops following. It may be called any number of times, and before Start;
// what is known stays readable.
func (i *Identity) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.tracker == nil || i.closed {
		return nil
	}
	i.closed = true
	return i.tracker.stop()
}

// Degraded tells why containers are not followed through the kernel; nil if they
// are.
func (i *Identity) Degraded() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.degraded
}

// Unknown is how many lookups were answered with less than was asked for, because
// the cgroup or the process was not known and could not be found.
func (i *Identity) Unknown() uint64 {
	return i.unknown.Load()
}

// Lost is how many comings and goings of cgroups found the tracker's ring buffer
// full; those are made good by looking into cgroupfs. It is 0 after Close.
func (i *Identity) Lost() (uint64, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.tracker == nil || i.closed {
		return 0, nil
	}
	return i.tracker.lost()
}

// Source is the hierarchy in use, an enum cgroup_source; valid after Start.
func (i *Identity) Source() uint32 {
	return i.hierarchy.source
}

// Host is the resource without attributes.
func (i *Identity) Host() *otlp.Resource {
	return i.host
}

// Container returns the resource of the container that the cgroup belongs to: the
// same pointer for all cgroups of one container, and again after a restart. It is
// Host() for cgroups of no container, and, counted, for those that nobody knows.
// Removed cgroups stay known until MaxCgroups pushes them out.
func (i *Identity) Container(cgroupID uint64) *otlp.Resource {
	found, ok := i.cgroups.find(cgroupID)
	if !ok {
		i.unknown.Add(1)
		return i.host
	}
	return found.resource
}

// Path returns the path of a cgroup from its hierarchy's root.
func (i *Identity) Path(cgroupID uint64) (string, bool) {
	found, ok := i.cgroups.find(cgroupID)
	return found.path, ok
}

// Resource returns what a scope id of the kernel's maps (task_scope() in scope.h)
// stands for: Host(), Container(id), or a process's resource, as Options.Scope says.
//
// A process's resource has its container's attributes, process.pid,
// process.creation.time, and what is known of process.parent_pid and
// process.executable.name and .path. It stays the same pointer until the process
// executes another program. The overflow series' scope is the host's.
func (i *Identity) Resource(scopeID uint64) *otlp.Resource {
	if scopeID == load.OverflowScope {
		return i.host
	}
	switch i.options.Scope {
	case ScopeContainer:
		return i.Container(scopeID)
	case ScopeProcess:
		return i.processResource(scopeID)
	}
	return i.host
}

// Gone tells that the cgroup was removed, or the process exited, at least a grace
// period ago: no task can count under the id any more, so what the kernel's maps
// hold for it will not change and may be deleted. The host and the overflow series
// are never gone.
func (i *Identity) Gone(scopeID uint64) bool {
	if scopeID == load.OverflowScope {
		return false
	}
	switch i.options.Scope {
	case ScopeContainer:
		every := verifyCgroups
		if i.Degraded() != nil {
			every = i.options.Grace
		}
		return i.cgroups.gone(scopeID, i.options.Grace, every)
	case ScopeProcess:
		return i.processGone(scopeID)
	}
	return false
}

// Exec records that a process executes a program. PID and Start are required, the
// rest updates what is known.
func (i *Identity) Exec(process Process) {
	i.processes.put(process, process.Executable == "")
}

// Fork records a new process. Of parent only PID and Start count (Start may be 0);
// what child leaves empty it inherits, as far as the parent is known. A parent
// with a PID of 0 is unknown.
func (i *Identity) Fork(parent, child Process) {
	i.processes.fork(parent, child)
}

// Exit records the end of a process, at a wall-clock time (zero is now). A start of
// 0 means the newest process with the pid. It can be looked up for another minute.
func (i *Identity) Exit(pid uint32, start uint64, at time.Time) {
	i.processes.exit(pid, start, at)
}

// Known is Process without a look into /proc, for a process that is on its way out
// and no longer to be found there.
func (i *Identity) Known(pid uint32, start uint64) (Process, bool) {
	found, ok := i.processes.get(pid, start)
	return found.Process, ok
}

// Process returns the process with the pid that started then, at the granularity
// of 10 ms; a start of 0 means whichever has the pid now, or had it last. What is
// not known is read from /proc while the process is alive.
func (i *Identity) Process(pid uint32, start uint64) (Process, bool) {
	if start == 0 {
		// The cache may not have heard of the last one's end: ask first.
		now, err := i.proc.stat(pid)
		if err != nil {
			found, ok := i.processes.last(pid)
			return found.Process, ok
		}
		start = now.ticks * tick
	}
	found, ok := i.processes.get(pid, start)
	if ok && (!found.partial || !found.Exited.IsZero()) {
		return found.Process, true
	}
	read, err := i.readProcess(pid)
	if err != nil || read.Start/tick != start/tick {
		return found.Process, ok
	}
	found, ok = i.processes.get(pid, start)
	return found.Process, ok
}

// readProcess reads a living process into the cache.
func (i *Identity) readProcess(pid uint32) (Process, error) {
	process, path, err := i.proc.read(pid, i.hierarchy.controller)
	if err != nil {
		return Process{}, err
	}
	process.Cgroup = i.cgroupID(path)
	i.processes.put(process, false)
	return process, nil
}

// cgroupID returns the id of a cgroup's path as /proc/PID/cgroup gives it, 0 if it
// is not visible from here: a path that begins with /.. lies outside of our own
// cgroup namespace.
func (i *Identity) cgroupID(path string) uint64 {
	if i.hierarchy.mount == "" || path == "" || path == "/.." || strings.HasPrefix(path, "/../") {
		return 0
	}
	id, err := inode(filepath.Join(i.hierarchy.mount, path))
	if err != nil && !os.IsNotExist(err) {
		i.options.Logger.Debug("cgroup folder", zap.String("path", path), zap.Error(err))
	}
	return id
}
