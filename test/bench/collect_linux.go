package main

import (
	"errors"
	"fmt"
)

// collectBudget is FACTS.md's for 20,000 series, in milliseconds, pdata apart.
const collectBudget = 40

// collectSection measures one collection.
func collectSection(b *bench) (table, error) {
	t := table{
		title: "One collection, steady state",
		header: []string{"series", "points", "Collect: table → points, ms", "allocations", "AppendTo: points → pmetric, ms", "allocations",
			"ns/series", "collections", "budget"},
	}
	for _, size := range []struct {
		workers, numbers int
		latency          bool
	}{{1, 50, false}, {5, 200, false}, {25, 400, false}, {25, 400, true}} {
		s, err := b.collections(size.workers, size.numbers, size.latency)
		if err != nil {
			return table{}, err
		}
		of := func(quantity string) float64 { return s.median("", quantity) }
		name := fmt.Sprintf("%.0f sums", of("series"))
		if size.latency {
			name = fmt.Sprintf("%d sums, %d histograms", 2*size.workers*size.numbers, size.workers*size.numbers)
		}
		cells := []string{name, fmt.Sprint(of("points")), number(of("read") / 1e6), number(of("read allocs")), number(of("build") / 1e6),
			number(of("build allocs")), number((of("read") + of("build")) / of("series")), fmt.Sprint(s.count(""))}
		if !size.latency {
			cells = append(cells, verdict("Collect ", of("read")/1e6, collectBudget*max(of("series"), 2000)/20000, " ms"))
		}
		t.row(cells...)
	}
	t.note("The syscalls probe, scope process: each of up to 25 processes makes up to 400 system calls that do not exist, which are a count " +
		"and an error (ENOSYS) each, once before each collection. The first collection, which makes the series, does not count. " +
		"The budget of 40 ms is for 20,000 series, pdata (AppendTo) apart.")
	return t, nil
}

// collections has processes make series, and collects a few times.
func (b *bench) collections(workers, numbers int, latency bool) (s *samples, err error) {
	// Each key is a series of two metrics; some room besides.
	start := request{Do: "collect-start", Count: workers*numbers + 100, Conf: map[string]any{"latency": latency}}
	if _, err := b.receiver.call(start); err != nil {
		return nil, err
	}
	defer func() {
		_, stopped := b.receiver.call(request{Do: "collect-stop"})
		err = errors.Join(err, stopped)
	}()
	var children []*child
	defer func() {
		for _, c := range children {
			c.close()
		}
	}()
	for range workers {
		c, err := newChild(roleWorker)
		if err != nil {
			return nil, err
		}
		children = append(children, c)
	}
	s = newSamples()
	for round := range pick(b, 11, 4) {
		if err := b.ctx.Err(); err != nil {
			return nil, err
		}
		for _, c := range children {
			if _, err := c.call(request{Do: "strange", Count: numbers, CPU: b.cpu}); err != nil {
				return nil, err
			}
		}
		v, err := b.receiver.call(request{Do: "collect"})
		if err != nil {
			return nil, err
		}
		if round > 0 {
			s.put("", round, v)
		}
	}
	return s, nil
}
