package ring

import (
	"context"
	"testing"
	"time"
)

func TestLingerAdapts(t *testing.T) {
	const size = 64 << 10
	for _, test := range []struct {
		name             string
		longest, current time.Duration
		available        int
		want             time.Duration
	}{
		{"more than a quarter full: half", 100 * time.Millisecond, 100 * time.Millisecond, size/4 + 1, 50 * time.Millisecond},
		{"a quarter full: as it is", 100 * time.Millisecond, 50 * time.Millisecond, size / 4, 50 * time.Millisecond},
		{"a sixteenth full: as it is", 100 * time.Millisecond, 50 * time.Millisecond, size / 16, 50 * time.Millisecond},
		{"nearly empty: twice", 100 * time.Millisecond, 25 * time.Millisecond, size/16 - 1, 50 * time.Millisecond},
		{"never longer than the longest", 100 * time.Millisecond, 70 * time.Millisecond, 0, 100 * time.Millisecond},
		{"never shorter than the shortest", 100 * time.Millisecond, minLinger, size, minLinger},
		{"unless the longest is", minLinger / 4, minLinger / 4, size, minLinger / 4},
		{"none stays none", 0, 0, 0, 0},
		{"none stays none when full", 0, 0, size, 0},
	} {
		l := newLinger(test.longest, size)
		l.current = test.current
		l.adapt(test.available)
		if l.current != test.want {
			t.Errorf("%s: %s, want %s", test.name, l.current, test.want)
		}
	}
}

// TestLingerRecovers follows a burst and the quiet after it.
func TestLingerRecovers(t *testing.T) {
	l := newLinger(100*time.Millisecond, 1024)
	for range 20 {
		l.adapt(1024)
		if l.current < minLinger || l.current > l.longest {
			t.Fatalf("linger %s left its bounds", l.current)
		}
	}
	if l.current != minLinger {
		t.Errorf("after a burst: %s, want %s", l.current, minLinger)
	}
	for range 20 {
		l.adapt(0)
	}
	if l.current != l.longest {
		t.Errorf("after the quiet: %s, want %s", l.current, l.longest)
	}
}

// TestLingerWait uses a linger that no test would survive: whatever returns did
// not wait for it.
func TestLingerWait(t *testing.T) {
	l := newLinger(time.Hour, 1024)
	l.wait(t.Context(), 1024/4+1) // the ring is filling
	done, cancel := context.WithCancel(t.Context())
	cancel()
	l.wait(done, 0)
	newLinger(0, 1024).wait(t.Context(), 0)

	l = newLinger(30*time.Millisecond, 1024)
	began := time.Now()
	l.wait(t.Context(), 0)
	if waited := time.Since(began); waited < l.longest {
		t.Errorf("waited %s, want at least %s", waited, l.longest)
	}
}

// TestLingerAfterQuiet: a pause longer than the linger shortens the next one, which
// grows back while the ring stays nearly empty.
func TestLingerAfterQuiet(t *testing.T) {
	l := newLinger(80*time.Millisecond, 1<<20)
	l.quiet(80 * time.Millisecond)
	if l.current != 80*time.Millisecond {
		t.Errorf("no pause: %s", l.current)
	}
	l.quiet(time.Second)
	if l.current != 20*time.Millisecond {
		t.Errorf("after a pause: %s", l.current)
	}
	for range 2 {
		l.adapt(0)
	}
	if l.current != 80*time.Millisecond {
		t.Errorf("grown back: %s", l.current)
	}
	never := newLinger(0, 1<<20)
	never.quiet(time.Hour)
	if never.current != 0 {
		t.Errorf("without lingering: %s", never.current)
	}
}
