package ring

import (
	"context"
	"time"
)

// minLinger is as short as lingering gets: below a millisecond a sleep costs
// more CPU than the records that it gathers.
const minLinger = time.Millisecond

// linger is the time to wait between the first record and the drain. It halves
// when a drain finds the ring more than a quarter full, because then the next one
// might find it overrun, and grows again when the ring was nearly empty.
type linger struct {
	longest time.Duration
	current time.Duration
	size    int
}

func newLinger(longest time.Duration, ringSize int) *linger {
	return &linger{longest: longest, current: longest, size: ringSize}
}

// quiet takes note of how long nothing came. After a pause nobody knows how much
// comes next, and a burst can fill a ring within the longest linger, so it starts
// with a part of it.
func (l *linger) quiet(pause time.Duration) {
	if pause > l.longest {
		l.current = min(l.current, max(l.longest/4, minLinger), l.longest)
	}
}

// wait sleeps for the linger; not at all when the ring has filled a quarter
// already, and no longer than ctx.
func (l *linger) wait(ctx context.Context, available int) {
	if l.current <= 0 || available > l.size/4 {
		return
	}
	timer := time.NewTimer(l.current)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// adapt takes note of how many bytes a linger has gathered.
func (l *linger) adapt(available int) {
	switch {
	case l.longest <= 0:
	case available > l.size/4:
		l.current = min(max(l.current/2, minLinger), l.longest)
	case available < l.size/16:
		l.current = min(l.current*2, l.longest)
	}
}
