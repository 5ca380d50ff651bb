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
// distance between the two is measured anew from time to time: a record gets the
// wall-clock time that was valid about when it is read.
//
// A Clock is safe for concurrent use.
type Clock struct {
	// offset is wall-clock minus boot-time, ns.
	offset atomic.Int64
}

// NewClock returns a clock that has measured once.
func NewClock() (*Clock, error) {
	c := &Clock{}
	if err := c.Measure(); err != nil {
		return nil, err
	}
	return c, nil
}

// measurements is how often one Measure compares the clocks; the pair that took
// the shortest time counts, for a preemption between two reads adds its length.
const measurements = 5

// Measure compares the clocks.
func (c *Clock) Measure() error {
	best := int64(-1)
	for range measurements {
		var before, wall, after unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &before); err != nil {
			return fmt.Errorf("boot-time clock: %w", err)
		}
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &wall); err != nil {
			return fmt.Errorf("wall clock: %w", err)
		}
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &after); err != nil {
			return fmt.Errorf("boot-time clock: %w", err)
		}
		took := after.Nano() - before.Nano()
		if best < 0 || took < best {
			best = took
			c.offset.Store(wall.Nano() - before.Nano() - took/2)
		}
	}
	return nil
}

// Wall is the wall-clock time of a moment on the boot-time clock, ns.
func (c *Clock) Wall(boot uint64) time.Time {
	return time.Unix(0, c.WallNano(boot)).UTC()
}

// WallNano is Wall in nanoseconds since the Unix epoch.
func (c *Clock) WallNano(boot uint64) int64 {
	return int64(boot) + c.offset.Load()
}

// Boot is the boot-time clock now, ns.
func Boot() uint64 {
	var now unix.Timespec
	// CLOCK_BOOTTIME cannot fail on any kernel that has BPF.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return uint64(now.Nano())
}
