//go:build linux

package enrich

import (
	"testing"
	"time"
)

// A process that nobody has named is asked for again until its exec could have been
// reported, and then stays what its id says.
func TestOwnerWaitsForTheName(t *testing.T) {
	now := time.Now()
	i := New(Options{Scope: ScopeProcess, RootPath: t.TempDir()})
	i.now = func() time.Time { return now }
	i.strays.now = i.now
	const start = uint64(5000) << scopeShift
	scope := uint64(4711) | start>>scopeShift<<32

	if _, final := i.Owner(scope); final {
		t.Fatal("the first answer is final")
	}
	i.Exec(Process{PID: 4711, Start: start, Executable: "/bin/short"})
	named, final := i.Owner(scope)
	if !final || named != i.Resource(scope) {
		t.Fatal("not named by its exec")
	}
	i.Exec(Process{PID: 4711, Start: start, Executable: "/bin/other"})
	if other, final := i.Owner(scope); !final || other == named {
		t.Fatal("another program is not another owner")
	}

	const silent = uint64(4712) | 7000<<32
	if _, final := i.Owner(silent); final {
		t.Fatal("the first answer is final")
	}
	now = now.Add(retryUnknown)
	if _, final := i.Owner(silent); !final {
		t.Fatal("waits for ever")
	}

	const last = uint64(4713) | 7000<<32
	i.Final()
	if _, final := i.Owner(last); !final {
		t.Fatal("waits after the end")
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
}
