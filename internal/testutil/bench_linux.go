package testutil

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Variant is one of several things whose cost a benchmark compares. Attach returns
// what is running; the benchmark closes it again.
type Variant struct {
	Name   string
	Attach func() (io.Closer, map[string]*ebpf.Program)
}

// Compare measures each variant's cost over the first one's, in rounds that take
// turns so that a slow moment hits all alike, and reports medians: "NAME-ns", wall
// time, and "NAME/PROGRAM-bpf-ns", the kernel's own measure of a program's run, which
// contains some 70 ns of measuring. The measure function returns nanoseconds.
func Compare(b *testing.B, rounds int, variants []Variant, measure func() float64) {
	b.Helper()
	wall := make([][]float64, len(variants))
	for range rounds {
		for i, v := range variants {
			running, _ := v.Attach()
			measure()
			wall[i] = append(wall[i], measure())
			closeAll(b, running)
		}
	}
	base := median(wall[0])
	b.ReportMetric(base, variants[0].Name+"-ns")
	b.ReportMetric(0, "ns/op")
	for i, v := range variants[1:] {
		b.ReportMetric(median(wall[i+1])-base, v.Name+"-ns")
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer closeAll(b, stats)
	for _, v := range variants[1:] {
		running, programs := v.Attach()
		measure()
		for name, program := range programs {
			s, err := program.Stats()
			if err != nil {
				b.Fatal(err)
			}
			if s.RunCount > 0 {
				b.ReportMetric(float64(s.Runtime)/float64(s.RunCount), v.Name+"/"+name+"-bpf-ns")
			}
		}
		closeAll(b, running)
	}
}

func closeAll(b *testing.B, closer io.Closer) {
	b.Helper()
	if closer == nil {
		return
	}
	if err := closer.Close(); err != nil {
		b.Fatal(err)
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// Nothing is the variant to compare with.
func Nothing() Variant {
	return Variant{"nothing", func() (io.Closer, map[string]*ebpf.Program) { return nil, nil }}
}

// EmptyProgram is the variant of a program at tp_btf/hook that does nothing.
func EmptyProgram(b *testing.B, hook string) Variant {
	b.Helper()
	return floor(b, "empty", hook, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
}

// HashProgram is the variant of a program at tp_btf/hook that increments a value in
// a per-CPU hash map under a key of sixteen bytes.
func HashProgram(b *testing.B, hook string) Variant {
	b.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 16, ValueSize: 8, MaxEntries: 16000})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { closeAll(b, m) })
	if err := m.Put(make([]byte, 16), make([]uint64, ebpf.MustPossibleCPU())); err != nil {
		b.Fatal(err)
	}
	return floor(b, "hash", hook, asm.Instructions{
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -16),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	})
}

func floor(b *testing.B, name, hook string, instructions asm.Instructions) Variant {
	b.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: hook, License: "GPL", Instructions: instructions,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { closeAll(b, program) })
	return Variant{name, func() (io.Closer, map[string]*ebpf.Program) {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			b.Fatal(err)
		}
		return l, map[string]*ebpf.Program{hook: program}
	}}
}

// PerCall returns the nanoseconds that one of n calls of do takes.
func PerCall(n int, do func()) float64 {
	began := time.Now()
	for range n {
		do()
	}
	return float64(time.Since(began)) / float64(n)
}
