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
	final    bool // a permanent error was told: nothing may follow it
}

func newStatusReporter(report func(*StatusEvent)) *statusReporter {
	if report == nil {
		report = func(*StatusEvent) {}
	}
	return &statusReporter{report: report, troubles: map[string]error{}}
}

// ok tells that the start went well.
func (s *statusReporter) ok() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell()
}

// recoverable notes a trouble that may end by itself.
func (s *statusReporter) recoverable(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.troubles[name]; known {
		return
	}
	s.troubles[name] = err
	s.tell()
}

// resolved notes that a trouble has ended.
func (s *statusReporter) resolved(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.troubles[name]; !known {
		return
	}
	delete(s.troubles, name)
	s.tell()
}

// permanent tells an error that only a restart can mend.
func (s *statusReporter) permanent(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.final {
		return
	}
	s.final = true
	s.report(&StatusEvent{Err: err, Permanent: true})
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
	text := "ok"
	if err != nil {
		text = err.Error()
	}
	if text == s.told {
		return
	}
	s.told = text
	s.report(&StatusEvent{Err: err})
}
