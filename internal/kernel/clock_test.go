package kernel

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestClockAgreesWithTime(t *testing.T) {
	c, err := NewClock()
	require.NoError(t, err)
	var worst, last time.Duration
	for range 1000 {
		before := time.Now()
		boot := Boot()
		after := time.Now()
		got := c.Wall(boot)
		worst = max(worst, before.Sub(got), got.Sub(after))
		require.GreaterOrEqual(t, time.Duration(boot), last, "the boot-time clock goes on")
		last = time.Duration(boot)
	}
	assert.Less(t, worst, 5*time.Millisecond)
	assert.Equal(t, time.UTC, c.Wall(Boot()).Location())
	assert.Equal(t, c.WallNano(12345), c.Wall(12345).UnixNano())
}

// fakeClocks are two clocks; each reading of the boot-time clock takes time.
type fakeClocks struct {
	boot, offset int64
	// delays are the times that the readings take, in turn.
	delays []int64
	err    error
}

func (f *fakeClocks) read(id int32) (int64, error) {
	if f.err != nil {
		return 0, f.err
	}
	if len(f.delays) > 0 {
		f.boot += f.delays[0]
		f.delays = f.delays[1:]
	}
	if id == unix.CLOCK_REALTIME {
		return f.boot + f.offset, nil
	}
	return f.boot, nil
}

func TestClockFollowsSteps(t *testing.T) {
	const hour = int64(time.Hour)
	clocks := &fakeClocks{boot: hour, offset: 1000 * hour}
	c, err := newClock(clocks.read)
	require.NoError(t, err)
	assert.Equal(t, 1001*hour, c.WallNano(uint64(hour)))

	// The wall clock is set back; what is read from then on has the new time.
	clocks.offset -= 2 * hour
	assert.Equal(t, 1001*hour, c.WallNano(uint64(hour)), "not measured yet")
	require.NoError(t, c.Measure())
	assert.Equal(t, 999*hour, c.WallNano(uint64(hour)))

	// Suspend: both clocks go on, so nothing changes.
	clocks.boot += 10 * hour
	require.NoError(t, c.Measure())
	assert.Equal(t, 999*hour, c.WallNano(uint64(hour)))

	// A clock that cannot be read leaves the last comparison.
	clocks.err = errors.New("broken")
	assert.ErrorIs(t, c.Measure(), clocks.err)
	assert.Equal(t, 999*hour, c.WallNano(uint64(hour)))
	_, err = newClock(clocks.read)
	assert.ErrorIs(t, err, clocks.err)
}

// TestClockMeasuresByItself: records alone, without a collection, notice a step.
func TestClockMeasuresByItself(t *testing.T) {
	clocks := &fakeClocks{boot: 1000, offset: 100}
	c, err := newClock(clocks.read)
	require.NoError(t, err)
	clocks.offset = 7
	assert.EqualValues(t, 1100, c.WallNano(1000))
	assert.EqualValues(t, 100, c.WallNano(0), "an old moment, such as a process's start, is no reason")
	clocks.boot += remeasure
	assert.EqualValues(t, clocks.boot+7, c.WallNano(uint64(clocks.boot)))
	assert.EqualValues(t, 7, c.WallNano(0))
	// A time that no record can have is no reason to fall over.
	clocks.err = errors.New("broken")
	assert.NotPanics(t, func() { c.Wall(^uint64(0)); c.Wall(1 << 63) })
}

// TestClockIgnoresPreemption: a pause between two readings spoils one of the
// measurements, not the result.
func TestClockIgnoresPreemption(t *testing.T) {
	clocks := &fakeClocks{offset: 5000, delays: []int64{
		0, 0, 1_000_000, // a pause after the wall clock was read
		0, 1_000_000, 0, // and one before
		0, 10, 10, // undisturbed
		0, 900_000, 900_000,
		0, 0, 1_000_000,
	}}
	c, err := newClock(clocks.read)
	require.NoError(t, err)
	assert.EqualValues(t, 5000, c.WallNano(0))
}
