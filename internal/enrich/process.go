//go:build linux

package enrich

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"otelcol-ebpf/internal/otlp"
)

// keepExited is how long a process can be looked up after its end.
const keepExited = time.Minute

// Process is a thread group. Empty fields are unknown.
type Process struct {
	PID, ParentPID uint32
	// Start is the leader's start on the boot-time clock, ns. What was read from
	// /proc is rounded down to 10 ms.
	Start uint64
	// Executable is the path of the program, as the process saw it when it was
	// executed; a kernel thread has none.
	Executable string
	// Name is the kernel's comm of at most 15 bytes, which a process may change.
	Name string
	// Cgroup is the id of its cgroup in the hierarchy that tells containers apart.
	Cgroup uint64
	// UID is the real user id in the initial user namespace. 0 is root: Exec takes
	// it as it is.
	UID uint32
	// Exited is zero while the process is alive.
	Exited time.Time
}

// processKey tells processes apart with the granularity of /proc, so that one
// that was read there and one that the kernel reported meet. A pid is not reused
// within 10 ms.
type processKey struct {
	pid   uint32
	ticks uint64
}

func (p *Process) key() processKey {
	return processKey{p.PID, p.Start / tick}
}

type cached struct {
	Process
	// partial: /proc may know more.
	partial  bool
	checked  time.Time // last time it was seen to be alive
	resource *otlp.Resource
}

// processes is the cache. It is safe for concurrent use.
type processes struct {
	now func() time.Time

	mu    sync.Mutex
	known *store[processKey, *cached]
	// byPID holds the keys of each pid, the newest last.
	byPID map[uint32][]processKey
}

func newProcesses(limit int, now func() time.Time) *processes {
	p := &processes{now: now, byPID: make(map[uint32][]processKey)}
	p.known = newStore(limit, func(key processKey, _ *cached) {
		keys := slices.DeleteFunc(p.byPID[key.pid], func(k processKey) bool { return k == key })
		if len(keys) == 0 {
			delete(p.byPID, key.pid)
			return
		}
		p.byPID[key.pid] = keys
	})
	return p
}

// put adds or updates a living process, and takes older ones with its pid for
// exited.
func (p *processes) put(process Process, partial bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	key := process.key()
	if found, ok := p.known.get(key); ok {
		found.update(process, partial)
		found.checked = p.now()
		return
	}
	for _, other := range p.byPID[key.pid] {
		if other.ticks < key.ticks {
			p.exitLocked(other, p.now())
		}
	}
	process.Exited = time.Time{}
	p.known.put(key, &cached{Process: process, partial: partial, checked: p.now()})
	p.byPID[key.pid] = append(p.byPID[key.pid], key)
	slices.SortFunc(p.byPID[key.pid], func(a, b processKey) int { return cmp.Compare(a.ticks, b.ticks) })
}

// update takes over what is known of process; the resource that was made from the
// old facts is dropped if they differ.
func (c *cached) update(process Process, partial bool) {
	before := c.Process
	if process.Start%tick != 0 {
		c.Start = process.Start
	}
	if process.ParentPID != 0 {
		c.ParentPID = process.ParentPID
	}
	if process.Executable != "" {
		c.Executable = process.Executable
	}
	if process.Name != "" {
		c.Name = process.Name
	}
	if process.Cgroup != 0 {
		c.Cgroup = process.Cgroup
	}
	c.UID = process.UID
	c.partial = c.partial && partial
	if c.Executable != before.Executable || c.Cgroup != before.Cgroup || c.Executable == "" && c.Name != before.Name {
		c.resource = nil
	}
}

// fork adds a child with what it shares with its parent.
func (p *processes) fork(parent, child Process) {
	if parent.PID != 0 {
		child.ParentPID = parent.PID
	}
	p.mu.Lock()
	found := p.newest(parent.PID)
	if parent.Start != 0 {
		found, _ = p.known.get(parent.key())
	}
	if found != nil {
		if child.Executable == "" {
			child.Executable = found.Executable
		}
		if child.Name == "" {
			child.Name = found.Name
		}
		if child.Cgroup == 0 {
			child.Cgroup = found.Cgroup
		}
		if child.UID == 0 {
			child.UID = found.UID
		}
	}
	p.mu.Unlock()
	p.put(child, found == nil)
}

// exit records the end of a process; a start of 0 means the newest with the pid.
func (p *processes) exit(pid uint32, start uint64, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at.IsZero() {
		at = p.now()
	}
	key := processKey{pid, start / tick}
	if start == 0 {
		found := p.newest(pid)
		if found == nil {
			return
		}
		key = found.key()
	}
	p.exitLocked(key, at)
	p.expire()
}

func (p *processes) exitLocked(key processKey, at time.Time) {
	if found, ok := p.known.get(key); ok && found.Exited.IsZero() {
		found.Exited = at
		p.known.bury(key)
	}
}

// expire forgets what exited too long ago.
func (p *processes) expire() {
	for {
		key, found, ok := p.known.firstDead()
		if !ok || p.now().Sub(found.Exited) < keepExited {
			return
		}
		p.known.drop(key)
	}
}

// newest returns the youngest process with the pid, or nil.
func (p *processes) newest(pid uint32) *cached {
	keys := p.byPID[pid]
	if len(keys) == 0 {
		return nil
	}
	found, _ := p.known.get(keys[len(keys)-1])
	return found
}

// get returns the process that started in the same tick as start.
func (p *processes) get(pid uint32, start uint64) (cached, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.known.get(processKey{pid, start / tick})
	if !ok {
		return cached{}, false
	}
	return *found, true
}

// last returns the youngest process with the pid, alive or not.
func (p *processes) last(pid uint32) (cached, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.newest(pid); found != nil {
		return *found, true
	}
	return cached{}, false
}

// scoped returns the process that a scope id (process_id() in scope.h) means.
func (p *processes) scoped(scopeID uint64) (cached, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := p.byPID[uint32(scopeID)]
	for i := len(keys) - 1; i >= 0; i-- {
		if found, ok := p.known.get(keys[i]); ok && inScope(found.Start, scopeID) {
			return *found, true
		}
	}
	return cached{}, false
}

// keepResource keeps the resource of a process, unless another goroutine was
// faster, and returns the one that is kept.
func (p *processes) keepResource(of cached, resource *otlp.Resource) *otlp.Resource {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.known.get(of.key())
	if !ok {
		return resource
	}
	if found.resource == nil && found.Executable == of.Executable && found.Cgroup == of.Cgroup {
		found.resource = resource
	}
	if found.resource != nil {
		return found.resource
	}
	return resource
}

// alive notes that the process was seen alive now.
func (p *processes) alive(key processKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found, ok := p.known.get(key); ok {
		found.checked = p.now()
	}
}

// scopeShift is process_id()'s unit of start times, 2^20 ns.
const scopeShift = 20

// inScope tells whether a process that started then may bear the scope id. A
// start that is a whole tick was rounded down, so any moment of the tick will do.
func inScope(start, scopeID uint64) bool {
	first, last := start>>scopeShift, start>>scopeShift
	if start%tick == 0 {
		last = (start + tick - 1) >> scopeShift
	}
	// Both wrap after 2^32 units.
	return uint32(scopeID>>32)-uint32(first) <= uint32(last-first)
}

// startOf returns the latest start up to now that bears the scope id, ns of the
// boot-time clock, rounded down to the scope's unit.
func startOf(scopeID, now uint64) uint64 {
	const period = uint64(1) << 32
	unit, low := now>>scopeShift, scopeID>>32
	high := unit &^ (period - 1)
	if low > unit&(period-1) && high >= period {
		high -= period
	}
	return (high | low) << scopeShift
}
