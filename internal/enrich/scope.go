//go:build linux

package enrich

import (
	"errors"
	"io/fs"
	"path"
	"sync"
	"time"

	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/otlp"
)

// stray is a process that exited before anybody could name it.
type stray struct {
	resource     *otlp.Resource
	since, tried time.Time
}

// strays remembers them, so that each has one resource and is looked for once a
// second at most.
type strays struct {
	now   func() time.Time
	mu    *sync.Mutex
	known *store[uint64, *stray]
}

func newStrays(limit int, now func() time.Time) strays {
	return strays{now: now, mu: &sync.Mutex{}, known: newStore[uint64, *stray](limit, nil)}
}

// meet returns the stray of the scope id, made with resource if it is new, and
// whether it is time to look for the process (again).
func (s strays) meet(scopeID uint64, resource func() *otlp.Resource) (stray, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	found, ok := s.known.get(scopeID)
	if !ok {
		found = &stray{resource: resource(), since: now, tried: now}
		s.known.put(scopeID, found)
		return *found, true
	}
	due := now.Sub(found.tried) >= retryUnknown
	if due {
		found.tried = now
	}
	return *found, due
}

func (s strays) drop(scopeID uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.drop(scopeID)
}

// scoped returns the process of a scope id, read from /proc if need be. If there
// is none, it returns the stray.
func (i *Identity) scoped(scopeID uint64) (cached, stray, bool) {
	if found, ok := i.processes.scoped(scopeID); ok {
		return found, stray{}, true
	}
	unnamed, due := i.strays.meet(scopeID, func() *otlp.Resource { return i.strayResource(scopeID) })
	if !due {
		return cached{}, unnamed, false
	}
	if _, err := i.readProcess(uint32(scopeID)); err == nil {
		if found, ok := i.processes.scoped(scopeID); ok {
			i.strays.drop(scopeID)
			return found, stray{}, true
		}
	}
	return cached{}, unnamed, false
}

func (i *Identity) processResource(scopeID uint64) *otlp.Resource {
	found, unnamed, ok := i.scoped(scopeID)
	if !ok {
		i.unknown.Add(1)
		return unnamed.resource
	}
	if found.resource != nil {
		return found.resource
	}
	if found.partial && found.Exited.IsZero() {
		if whole, ok := i.Process(found.PID, found.Start); ok {
			found.Process = whole
		}
	}
	var attrs []otlp.Attr
	if found.Cgroup != 0 {
		attrs = append(attrs, i.Container(found.Cgroup).Attributes()...)
	}
	attrs = append(attrs, otlp.Int("process.pid", int64(found.PID)))
	if found.ParentPID != 0 {
		attrs = append(attrs, otlp.Int("process.parent_pid", int64(found.ParentPID)))
	}
	attrs = append(attrs, i.creationTime(found.Start))
	if name := executableName(found.Process); name != "" {
		attrs = append(attrs, otlp.String("process.executable.name", name))
	}
	if found.Executable != "" {
		attrs = append(attrs, otlp.String("process.executable.path", found.Executable))
	}
	return i.processes.keepResource(found, otlp.NewResource(attrs...))
}

// Owner is Resource, and whether the answer is final. It is not for a process that
// nobody has named so far and that was first asked for less than a second ago: the
// record of its exec may still be on its way. After Final every answer is.
func (i *Identity) Owner(scopeID uint64) (resource *otlp.Resource, final bool) {
	if i.options.Scope != ScopeProcess || scopeID == 0 || i.final.Load() {
		return i.Resource(scopeID), true
	}
	if _, unnamed, ok := i.scoped(scopeID); !ok && i.now().Sub(unnamed.since) < retryUnknown {
		return nil, false
	}
	return i.Resource(scopeID), true
}

// Final says that no more records of processes will come, so that those who are
// not known by now never will be.
func (i *Identity) Final() { i.final.Store(true) }

// executableName is the last element of the executable's path; a kernel thread
// has its name.
func executableName(process Process) string {
	if process.Executable == "" {
		return process.Name
	}
	return path.Base(process.Executable)
}

// strayResource has what the scope id itself says.
func (i *Identity) strayResource(scopeID uint64) *otlp.Resource {
	attrs := []otlp.Attr{otlp.Int("process.pid", int64(uint32(scopeID)))}
	if i.options.Clock != nil {
		attrs = append(attrs, i.creationTime(startOf(scopeID, kernel.Boot())))
	}
	return otlp.NewResource(attrs...)
}

func (i *Identity) creationTime(start uint64) otlp.Attr {
	var at time.Time
	if i.options.Clock != nil {
		at = i.options.Clock.Wall(start)
	}
	return otlp.String("process.creation.time", at.Format(time.RFC3339Nano))
}

func (i *Identity) processGone(scopeID uint64) bool {
	now, grace := i.now(), i.options.Grace
	found, unnamed, ok := i.scoped(scopeID)
	if !ok {
		return now.Sub(unnamed.since) >= grace
	}
	if !found.Exited.IsZero() {
		return now.Sub(found.Exited) >= grace
	}
	// Nobody may feed us with exits, or one was lost.
	if now.Sub(found.checked) < grace {
		return false
	}
	current, err := i.proc.stat(found.PID)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && (current.dead || current.ticks != found.Start/tick):
		i.processes.exit(found.PID, found.Start, now)
	case err == nil:
		i.processes.alive(found.key())
	}
	return false
}
