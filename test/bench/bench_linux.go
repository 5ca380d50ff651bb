package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// bench is what the sections share.
type bench struct {
	ctx      context.Context
	deadline time.Time
	quick    bool
	// cpu is where workers run; the receiver may run anywhere.
	cpu      int
	worker   *child
	receiver *child
	empty    *ebpf.Collection
}

func newBench(ctx context.Context, s section, quick bool) (*bench, error) {
	limit := s.limit
	if quick {
		limit /= quickly
	}
	b := &bench{ctx: ctx, quick: quick, cpu: lastCPU(), deadline: time.Now().Add(limit)}
	var err error
	if b.empty, err = loadEmpty(); err != nil {
		return nil, err
	}
	if b.worker, err = newChild(roleWorker); err != nil {
		b.close()
		return nil, err
	}
	if b.receiver, err = newChild(roleReceiver); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	if b.worker != nil {
		b.worker.close()
	}
	if b.receiver != nil {
		b.receiver.close()
	}
	b.empty.Close()
}

// lastCPU is the last CPU that this process may use.
func lastCPU() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0
	}
	for cpu := 1023; cpu > 0; cpu-- {
		if set.IsSet(cpu) {
			return cpu
		}
	}
	return 0
}

// pick is a number for either mode.
func pick[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}

// work asks the worker for something on its CPU.
func (b *bench) work(r request) (values, error) {
	r.CPU = b.cpu
	return b.worker.call(r)
}

// samples are measurements by variant and quantity, in order of rounds; a round
// that a variant was not in has no entry.
type samples struct {
	rounds  map[string]map[string]map[int]float64
	missing map[string]error
}

func newSamples() *samples {
	return &samples{rounds: map[string]map[string]map[int]float64{}, missing: map[string]error{}}
}

func (s *samples) put(variant string, round int, v values) {
	of := s.rounds[variant]
	if of == nil {
		of = map[string]map[int]float64{}
		s.rounds[variant] = of
	}
	for quantity, value := range v {
		if of[quantity] == nil {
			of[quantity] = map[int]float64{}
		}
		of[quantity][round] = value
	}
}

func (s *samples) median(variant, quantity string) float64 {
	var all []float64
	for _, value := range s.rounds[variant][quantity] {
		all = append(all, value)
	}
	return median(all)
}

// added is the median difference to another variant in the same round.
func (s *samples) added(variant, to, quantity string) float64 {
	var all []float64
	for round, value := range s.rounds[variant][quantity] {
		if other, ok := s.rounds[to][quantity][round]; ok {
			all = append(all, value-other)
		}
	}
	return median(all)
}

// count is in how many rounds a variant was.
func (s *samples) count(variant string) int {
	most := 0
	for _, rounds := range s.rounds[variant] {
		most = max(most, len(rounds))
	}
	return most
}

// leastRounds are measured even when time is up.
const leastRounds = 3

// interleave measures all variants in turn, each round beginning with another one,
// for so many rounds or until the section's share of time is used up. What cannot
// run is noted and left out.
func (b *bench) interleave(variants []variant, rounds int, share float64, measure func(variant, running) (values, error)) (*samples, error) {
	until := time.Now().Add(time.Duration(share * float64(time.Until(b.deadline))))
	s := newSamples()
	for round := 0; round < rounds && (round < leastRounds || time.Now().Before(until)); round++ {
		for i := range variants {
			v := variants[(round+i)%len(variants)]
			if s.missing[v.name] != nil || v.every > 1 && round%pick(b, v.every, rounds) != 0 {
				continue
			}
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			if err := b.once(v, round, s, measure); err != nil {
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
		}
	}
	return s, nil
}

// settle is the time that a variant gets after it was attached or detached.
const settle = 20 * time.Millisecond

func (b *bench) once(v variant, round int, s *samples, measure func(variant, running) (values, error)) error {
	r, err := v.start(b)
	if err != nil {
		s.missing[v.name] = err
		return nil
	}
	time.Sleep(settle)
	result, err := measure(v, r)
	if stopped := r.stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return err
	}
	s.put(v.name, round, result)
	return nil
}

// kernelTime measures what programs cost by the kernel's own statistics, which cost
// each run some 70 ns themselves and therefore are on at no other time. The
// operation returns how often it was done.
func (b *bench) kernelTime(variants []variant, operation func() (float64, error)) (*samples, error) {
	const runTimeStatistics = 0 // BPF_STATS_RUN_TIME
	statistics, err := ebpf.EnableStats(runTimeStatistics)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: no BPF statistics:", err)
		return newSamples(), nil
	}
	defer statistics.Close()
	return b.interleave(variants, pick(b, 5, 1), 0.9, func(_ variant, r running) (values, error) {
		if r.pid == 0 {
			return nil, nil
		}
		before := programsOf(r.pid)
		n, err := operation()
		if err != nil {
			return nil, err
		}
		ns, programs := runTime(before, programsOf(r.pid), n)
		return values{"bpf": ns, "programs": float64(programs)}, nil
	})
}

// mallocs is the number of allocations of this process so far.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// collectorTime is the processor time of this process's garbage collector so far, in
// ns, as the runtime estimates it at the end of each cycle.
func collectorTime() float64 {
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(sample)
	return sample[0].Value.Float64() * 1e9
}
