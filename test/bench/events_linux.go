package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/test/bench/empty"
)

// FACTS.md's budgets: for a log record of seven attributes from the ring to plog, and
// for reading alone.
const (
	recordBudgetNanos  = 1200
	recordBudgetAllocs = 10
	recordAttributes   = 7
	readBudget         = 1e6 // records of 128 bytes a second
)

// eventSection measures what records cost from the ring buffer on.
func eventSection(b *bench) (table, error) {
	t := table{
		title: "Events",
		header: []string{"what", "offered/s", "read/s", "reader's CPU, %", "ns/record", "of it GC", "records/s/core",
			"allocations/record", "lost", "exact", "budget"},
	}
	duration := pick(b, 4*time.Second, 800*time.Millisecond)
	for _, rate := range []int{1_200_000, 0} {
		v, err := b.receiver.call(request{Do: "ring", Time: duration, Count: rate, CPU: b.cpu})
		if err != nil {
			return table{}, err
		}
		what := "ring alone, 128 bytes, paced"
		if rate == 0 {
			what = "ring alone, 128 bytes, as fast as it goes"
		}
		t.row(append(eventRow(what, v), verdictAtLeast(v["read"]/v["seconds"], readBudget, "/s"))...)
	}
	for number, event := range []string{"process.exec", "process.exit"} {
		v, err := b.replay(number, duration)
		if err != nil {
			return table{}, fmt.Errorf("%s: %w", event, err)
		}
		scale := v["attributes"] / recordAttributes
		t.row(append(eventRow(fmt.Sprintf("ring → plog: %s, %.0f attributes, %.0f bytes", event, v["attributes"], v["size"]), v),
			verdict("", v["cpu"]/v["read"], scale*recordBudgetNanos, " ns")+"; "+
				verdict("", v["allocs"]/v["read"], scale*recordBudgetAllocs, " allocations"))...)
	}
	t.note("Exact: produced = read + lost, by the kernel's count and the reader's. Ring alone: %d-byte records, no consumer; the first linger "+
		"(%s) is longer than a ring of 4 MiB lasts at that rate, which is where paced records are lost.", plainRecord, execLinger)
	t.note("Ring to plog: a record that a real execution wrote is copied into the running probe's own ring by a BPF program, with 4,096 pids in " +
		"turn; a consumer counts what the engine hands on. ns: the receiver process's CPU, garbage collection on all cores included, for each record " +
		"read. The budget of a record of 7 attributes (1.2 µs, 10 allocations) is scaled to the record's number of them.")
	return t, nil
}

func eventRow(what string, v values) []string {
	each := v["cpu"] / v["read"]
	exact := "yes"
	if v["all produced"] != v["all read"]+v["all lost"] {
		exact = fmt.Sprintf("NO: %.0f ≠ %.0f + %.0f", v["all produced"], v["all read"], v["all lost"])
	}
	return []string{what, number(v["produced"] / v["seconds"]), number(v["read"] / v["seconds"]), number(100 * v["cpu"] / 1e9 / v["seconds"]),
		number(each), number(v["gc"] / v["read"]), number(1e9 / each), number(v["allocs"] / v["read"]), number(v["lost"]), exact}
}

// replay has the process probe's ring filled with one of the records that an
// execution makes: its exec (0) or its exit (1).
func (b *bench) replay(number int, duration time.Duration) (values, error) {
	conf := quietly(probes("container", map[string]any{"process": map[string]any{}}))
	conf["limits"] = map[string]any{"max_events_per_second": 0}
	if _, err := b.receiver.call(request{Do: "start", Conf: conf}); err != nil {
		return nil, err
	}
	v, err := b.fillProbe(number, duration)
	last, stopped := b.receiver.call(request{Do: "stop"})
	if err := errors.Join(err, stopped); err != nil {
		return nil, err
	}
	// All is counted once the probe has ended.
	if last["records"] != last["read"] {
		return nil, fmt.Errorf("%.0f records were read, %.0f consumed", last["read"], last["records"])
	}
	v["all produced"], v["all read"], v["all lost"] = last["produced"], last["read"], last["lost"]
	return v, nil
}

// replayRate is low enough for the ring to hold what lingers.
const replayRate = 150_000

// fillProbe fills the ring of the receiver's process probe for a while.
func (b *bench) fillProbe(number int, duration time.Duration) (values, error) {
	maps, err := probeMaps(b.receiver.pid())
	if err != nil {
		return nil, err
	}
	defer closeMaps(maps)
	done, err := b.work(request{Do: "exec", Count: 1})
	if err != nil {
		return nil, err
	}
	time.Sleep(drained)
	// Found before any filling overwrites them.
	fillers := make([]*filler, number+1)
	for n := range fillers {
		record, at, err := findRecord(maps[empty.BpfMapEvents], uint32(done["pid"]), n)
		if err != nil {
			return nil, err
		}
		if fillers[n], err = newFiller(record, at, maps); err != nil {
			return nil, err
		}
		defer fillers[n].close()
	}
	// The execs come first in either case: without them an exit's process is unknown.
	for _, f := range fillers {
		if err := paced(duration/8, replayRate, f.run); err != nil {
			return nil, err
		}
		time.Sleep(drained)
	}
	v, err := b.measureReplay(fillers[number], duration)
	if err != nil {
		return nil, err
	}
	v["size"] = float64(fillers[number].size)
	return v, nil
}

// measureReplay has a filler run for a while and says what that took the receiver.
func (b *bench) measureReplay(f *filler, duration time.Duration) (values, error) {
	before, err := b.receiver.call(request{Do: "observe"})
	if err != nil {
		return nil, err
	}
	spent, begin := cpuTime(b.receiver.pid()), time.Now()
	if err := paced(duration, replayRate, f.run); err != nil {
		return nil, err
	}
	seconds := time.Since(begin).Seconds()
	time.Sleep(drained)
	spent = cpuTime(b.receiver.pid()) - spent
	after, err := b.receiver.call(request{Do: "observe"})
	if err != nil {
		return nil, err
	}
	v := values{"seconds": seconds, "cpu": float64(spent.Nanoseconds()), "attributes": after["attributes"]}
	for _, count := range []string{"produced", "read", "lost", "gc"} {
		v[count] = after[count] - before[count]
	}
	v["allocs"] = after["mallocs"] - before["mallocs"]
	return v, nil
}

// paced calls run, which makes perRun records, at a rate of records a second; 0 is no
// limit.
func paced(duration time.Duration, rate int, run func() error) error {
	begin := time.Now()
	for n := 0; time.Since(begin) < duration; n += perRun {
		if rate > 0 {
			due := time.Duration(float64(n) / float64(rate) * float64(time.Second))
			time.Sleep(due - time.Since(begin))
		}
		if err := run(); err != nil {
			return err
		}
	}
	return nil
}

// probeMaps opens the maps of include/event.h of another process's process probe.
func probeMaps(pid int) (map[string]*ebpf.Map, error) {
	p, err := programNamed(pid, "sched_process_exec")
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	found := map[string]*ebpf.Map{}
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			closeMaps(found)
			return nil, err
		}
		described, err := m.Info()
		if err != nil || !slices.Contains([]string{empty.BpfMapEvents, empty.BpfMapEventCounts, empty.BpfMapEventWindow}, described.Name) {
			_ = m.Close()
			continue
		}
		found[described.Name] = m
	}
	if found[empty.BpfMapEvents] == nil || found[empty.BpfMapEventCounts] == nil {
		closeMaps(found)
		return nil, errors.New("the process probe has no ring buffer")
	}
	return found, nil
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		_ = m.Close()
	}
}

// findRecord looks into a ring buffer, read or not, for a record about a process, of
// several the one with that number, and returns a copy and where in it the pid stands. The layout is that of
// kernel/bpf/ringbuf.c: a page of the consumer, one of the producer, the data, in
// which each record has a header of eight bytes.
func findRecord(ring *ebpf.Map, pid uint32, number int) (record []byte, at int, err error) {
	page, size := os.Getpagesize(), int(ring.MaxEntries())
	memory, err := unix.Mmap(ring.FD(), int64(page), page+size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, 0, fmt.Errorf("map the ring buffer: %w", err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	const header, events, limit = 8, 24, 64 // of a record, of an event, and how far the pid may be
	end := min(int(binary.NativeEndian.Uint64(memory)), size)
	data := memory[page:]
	for next := 0; next < end; {
		length := int(binary.NativeEndian.Uint32(data[next:]) &^ (3 << 30))
		if next+header+length > end {
			break
		}
		found := data[next+header : next+header+length]
		for at := events; at+4 <= min(limit, length); at += 4 {
			if binary.NativeEndian.Uint32(found[at:]) != pid {
				continue
			}
			if number == 0 {
				return append([]byte(nil), found...), at, nil
			}
			number--
			break
		}
		next += (header + length + 7) &^ 7
	}
	return nil, 0, fmt.Errorf("the ring buffer has no record about process %d", pid)
}
