//go:build linux

package engine

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// statusReporter tells the component's health, and only when it changes. Troubles
// have names, so that one that ends leaves the others standing.
type statusReporter struct {
	report func(*StatusEvent)

	mu       sync.Mutex
	troubles map[string]error
	told     string
	final    bool // nothing may be told any more
}

// statusOK is what counts as told from the beginning: the Collector says itself
// that a component whose Start returned nil is well.
const statusOK = "ok"

func newStatusReporter(report func(*StatusEvent)) *statusReporter {
	if report == nil {
		report = func(*StatusEvent) {}
	}
	return &statusReporter{report: report, troubles: map[string]error{}, told: statusOK}
}

// recoverable notes a trouble that may end by itself, and tells whether it is new.
func (s *statusReporter) recoverable(name string, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.troubles[name]; known {
		return false
	}
	s.troubles[name] = err
	s.tell()
	return true
}

// resolved notes that a trouble has ended, and tells whether there was one.
func (s *statusReporter) resolved(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.troubles[name]; !known {
		return false
	}
	delete(s.troubles, name)
	s.tell()
	return true
}

// permanent tells an error that only a restart can mend: nothing may follow it.
func (s *statusReporter) permanent(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final {
		return
	}
	s.final = true
	s.report(&StatusEvent{Err: err, Permanent: true})
}

// mute ends all reports: the Collector takes over when a component is shut down,
// and refuses what it then says of its health.
func (s *statusReporter) mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.final = true
}

// tell reports the sum of all troubles if it differs from what was told last.
func (s *statusReporter) tell() {
	if s.final {
		return
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.troubles)) {
		errs = append(errs, s.troubles[name])
	}
	err := errors.Join(errs...)
	text := statusOK
	if err != nil {
		text = err.Error()
	}
	if text == s.told {
		return
	}
	s.told = text
	s.report(&StatusEvent{Err: err})
}
