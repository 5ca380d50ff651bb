//go:build linux

package kernel

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Clock turns the kernel's boot-time clock into wall-clock time. The boot-time
// clock goes on during suspend and does not step; the wall clock steps. So the
// distance between the two is measured anew when a moment lies remeasure or more
// after the last measurement: a record gets the wall-clock time that was valid about
// when it is read.
//
// A Clock is safe for concurrent use.
type Clock struct {
	// offset is wall-clock minus boot-time, ns.
	offset atomic.Int64
	// due is the boot-time from which on the offset is measured anew, ns.
	due atomic.Int64
	// read reads one of the kernel's clocks, ns.
	read func(id int32) (int64, error)
}

// NewClock returns a clock that has measured once.
func NewClock() (*Clock, error) {
	return newClock(readClock)
}

func newClock(read func(id int32) (int64, error)) (*Clock, error) {
	c := &Clock{read: read}
	if err := c.Measure(); err != nil {
		return nil, err
	}
	return c, nil
}

func readClock(id int32) (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(id, &now); err != nil {
		return 0, fmt.Errorf("clock %d: %w", id, err)
	}
	return now.Nano(), nil
}

// measurements is how often one Measure compares the clocks; the pair that took
// the shortest time counts, for a preemption between two reads adds its length.
const measurements = 5

// remeasure is how long a measurement holds, ns. What happens in between is what
// triggers the next one, so that no timer is needed.
const remeasure = int64(5 * time.Second)

// Measure compares the clocks. On an error the last comparison stays.
func (c *Clock) Measure() error {
	best, offset, now := int64(-1), int64(0), int64(0)
	for range measurements {
		before, err := c.read(unix.CLOCK_BOOTTIME)
		if err != nil {
			return err
		}
		wall, err := c.read(unix.CLOCK_REALTIME)
		if err != nil {
			return err
		}
		after, err := c.read(unix.CLOCK_BOOTTIME)
		if err != nil {
			return err
		}
		if took := after - before; best < 0 || took < best {
			best, offset = took, wall-before-took/2
		}
		now = after
	}
	c.offset.Store(offset)
	c.due.Store(now + remeasure)
	return nil
}

// Wall is the wall-clock time of a moment on the boot-time clock, ns.
func (c *Clock) Wall(boot uint64) time.Time {
	return time.Unix(0, c.WallNano(boot)).UTC()
}

// WallNano is Wall in nanoseconds since the Unix epoch.
func (c *Clock) WallNano(boot uint64) int64 {
	if int64(boot) >= c.due.Load() {
		// The clocks could be read when c was made, and if not, the last offset stays.
		_ = c.Measure()
	}
	return int64(boot) + c.offset.Load()
}

// Boot is the boot-time clock now, ns.
func Boot() uint64 {
	var now unix.Timespec
	// CLOCK_BOOTTIME cannot fail on any kernel that has BPF.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return uint64(now.Nano())
}
