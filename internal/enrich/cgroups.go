//go:build linux

package enrich

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/otlp"
)

// retryUnknown is how long an id that nothing knew is not looked for again, and
// the least time between two walks of cgroupfs.
const retryUnknown = time.Second

// rootInode is the id of every hierarchy's root; a mount that begins with another
// folder shows a part of the hierarchy.
const rootInode = 1

// cgroup is a folder of the hierarchy. Its id is the folder's inode number: 64
// bits that the kernel counts up and does not give out twice.
type cgroup struct {
	path     string // from the hierarchy's root: "/docker/…"
	owner    containerKey
	resource *otlp.Resource
	added    time.Time
	checked  time.Time // last time it was seen to exist
	removed  time.Time // zero: it exists
}

// missing is an id that was asked for and not found.
type missing struct {
	since, tried time.Time
	// absent: the kernel says that there is no such cgroup (any more).
	absent bool
}

type containerKey struct {
	container, pod string
}

// cgroups knows the folders of one hierarchy. It is safe for concurrent use.
type cgroups struct {
	mount   string
	whole   bool // the mount shows the hierarchy from its root
	handles bool // folders can be opened by id
	host    *otlp.Resource
	now     func() time.Time
	// drain waits until all events that the kernel sent so far are handled.
	drain func()

	// search makes those who look for unknown ids wait for each other; it is taken
	// before mu.
	search   sync.Mutex
	lastScan time.Time

	mu      sync.Mutex
	known   *store[uint64, *cgroup]
	unknown *store[uint64, *missing]
	// resources outlive their cgroups, so that a container that is started again
	// gets the same pointer.
	resources *store[containerKey, *otlp.Resource]
}

func newCgroups(host *otlp.Resource, limit int, now func() time.Time) *cgroups {
	return &cgroups{
		host:      host,
		now:       now,
		drain:     func() {},
		known:     newStore[uint64, *cgroup](limit, nil),
		unknown:   newStore[uint64, *missing](limit, nil),
		resources: newStore[containerKey, *otlp.Resource](limit, nil),
	}
}

// use sets the hierarchy's mount; before it nothing is looked for in cgroupfs.
func (c *cgroups) use(mount string) {
	if resolved, err := filepath.EvalSymlinks(mount); err == nil {
		mount = resolved
	}
	c.mount = mount
	id, err := inode(mount)
	c.whole = err == nil && id == rootInode
	if c.whole {
		_, err = pathOfID(mount, id)
		c.handles = err == nil
	}
}

// add records a cgroup that exists. The path counts, even if the id is known.
func (c *cgroups) add(id uint64, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(id, path)
}

func (c *cgroups) addLocked(id uint64, path string) {
	now := c.now()
	added := &cgroup{path: path, added: now, checked: now}
	added.owner.container, added.owner.pod = ContainerFromPath(path)
	added.resource = c.resourceOf(added.owner)
	c.known.put(id, added)
	c.unknown.drop(id)
}

// resourceOf returns the one resource of a container.
func (c *cgroups) resourceOf(key containerKey) *otlp.Resource {
	if key == (containerKey{}) {
		return c.host
	}
	if resource, ok := c.resources.get(key); ok {
		return resource
	}
	var attrs []otlp.Attr
	if key.container != "" {
		attrs = append(attrs, otlp.String("container.id", key.container))
	}
	if key.pod != "" {
		attrs = append(attrs, otlp.String("k8s.pod.uid", key.pod))
	}
	resource := otlp.NewResource(attrs...)
	c.resources.put(key, resource)
	return resource
}

// remove records that a cgroup went.
func (c *cgroups) remove(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.known.get(id); ok {
		c.buryLocked(id, found)
		return
	}
	c.unknown.put(id, &missing{since: c.now(), tried: c.now(), absent: true})
}

func (c *cgroups) buryLocked(id uint64, found *cgroup) {
	if found.removed.IsZero() {
		found.removed = c.now()
		c.known.bury(id)
	}
}

// get returns what is known about the id without looking for it.
func (c *cgroups) get(id uint64) (cgroup, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.known.get(id)
	if !ok {
		return cgroup{}, false
	}
	// A use of the cgroup is one of its resource, which must not be forgotten before.
	c.resources.get(found.owner)
	return *found, true
}

// find returns what is known about the id, and looks for it if nothing is: in
// the events that wait, then in cgroupfs.
func (c *cgroups) find(id uint64) (cgroup, bool) {
	if found, ok := c.get(id); ok {
		return found, true
	}
	if c.mount == "" || id == 0 {
		return cgroup{}, false
	}
	c.search.Lock()
	defer c.search.Unlock()
	if !c.missed(id) {
		return c.get(id)
	}
	c.drain()
	if found, ok := c.get(id); ok {
		return found, true
	}
	c.look(id)
	return c.get(id)
}

// missed notes that an unknown id is asked for, and tells whether it is time to
// look for it.
func (c *cgroups) missed(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known.get(id); ok {
		return false
	}
	now := c.now()
	miss, ok := c.unknown.get(id)
	if !ok {
		c.unknown.put(id, &missing{since: now, tried: now})
		return true
	}
	if now.Sub(miss.tried) < retryUnknown {
		return false
	}
	miss.tried = now
	return true
}

// look searches cgroupfs for the id: by its handle where the kernel lets us, and
// else by a walk, at most one a second. The caller holds search.
func (c *cgroups) look(id uint64) {
	if c.handles {
		path, err := pathOfID(c.mount, id)
		switch {
		case err == nil:
			c.add(id, path)
			return
		case errors.Is(err, unix.ESTALE):
			c.absent(id)
			return
		}
	}
	if c.now().Sub(c.lastScan) < retryUnknown {
		return
	}
	c.scan(id)
	if c.whole {
		c.absent(id)
	}
}

// absent records that the kernel has no cgroup of this id, unless it is known.
func (c *cgroups) absent(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if miss, ok := c.unknown.get(id); ok {
		miss.absent = true
	}
}

// scan walks cgroupfs: it adds what it finds, and takes what it does not find for
// removed. When there is no room left it adds only the wanted id, for what is in
// use is worth more than what nobody asks for. The caller holds search.
func (c *cgroups) scan(wanted uint64) {
	started := c.now()
	c.lastScan = started
	seen := make(map[uint64]bool)
	walk(c.mount, func(id uint64, path string) {
		seen[id] = true
		c.mu.Lock()
		defer c.mu.Unlock()
		found, ok := c.known.get(id)
		switch {
		case !ok && (id == wanted || c.known.room()):
			c.addLocked(id, path)
		case !ok:
		case found.removed.IsZero():
			found.checked = started
		case found.removed.Before(started):
			c.addLocked(id, path)
		}
	})
	if !c.whole {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.eachLive(func(id uint64, found *cgroup) {
		// What was made a moment ago may not have been visible yet.
		if !seen[id] && started.Sub(found.added) > retryUnknown {
			c.buryLocked(id, found)
		}
	})
}

// gone tells whether the cgroup was removed at least grace ago. An id that was
// never known is gone when the kernel has denied it for as long.
func (c *cgroups) gone(id uint64, grace, every time.Duration) bool {
	if c.mount == "" || id == 0 {
		return false
	}
	found, ok := c.find(id)
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		miss, ok := c.unknown.get(id)
		return ok && miss.absent && c.now().Sub(miss.since) >= grace
	}
	if found.removed.IsZero() && c.now().Sub(found.checked) >= every {
		c.verify(id)
	}
	return !found.removed.IsZero() && c.now().Sub(found.removed) >= grace
}

// verify asks cgroupfs whether a cgroup still exists, in case the event of its
// removal was lost.
func (c *cgroups) verify(id uint64) {
	c.search.Lock()
	defer c.search.Unlock()
	removed := false
	if c.handles {
		_, err := pathOfID(c.mount, id)
		removed = errors.Is(err, unix.ESTALE)
	} else if c.now().Sub(c.lastScan) >= retryUnknown {
		c.scan(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.known.get(id); ok {
		found.checked = c.now()
		if removed {
			c.buryLocked(id, found)
		}
	}
}

// walk calls visit with the id and the path of every folder below mount, the root
// included. Folders that vanish meanwhile are left out.
func walk(mount string, visit func(id uint64, path string)) {
	waiting := []string{"/"}
	for len(waiting) > 0 {
		path := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		folder := filepath.Join(mount, path)
		id, err := inode(folder)
		if err != nil {
			continue
		}
		visit(id, path)
		for _, name := range folders(folder) {
			waiting = append(waiting, filepath.Join(path, name))
		}
	}
}

// folders lists the folders in a folder, in no order.
func folders(path string) []string {
	folder, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer folder.Close()
	entries, _ := folder.ReadDir(-1)
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names
}

// inode returns the inode number of a file.
func inode(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fs.ErrInvalid
	}
	return stat.Ino, nil
}

// fileIDKernfs is FILEID_KERNFS: the handle of a kernfs file is its 64-bit id.
const fileIDKernfs = 0xfe

// pathOfID opens a cgroup's folder by the cgroup's id, and returns its path from
// the hierarchy's root. It needs CAP_DAC_READ_SEARCH in the initial user
// namespace. The error is ESTALE if there is no such cgroup.
func pathOfID(mount string, id uint64) (string, error) {
	root, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(root)
	var bytes [8]byte
	for i := range bytes {
		bytes[i] = byte(id >> (8 * i))
	}
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(fileIDKernfs, bytes[:]), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	path, ok := strings.CutPrefix(target, strings.TrimSuffix(mount, "/"))
	if !ok || strings.HasSuffix(target, " (deleted)") {
		return "", unix.ESTALE
	}
	if path == "" {
		path = "/"
	}
	return path, nil
}
