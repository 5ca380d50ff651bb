package otlp

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// BenchmarkAppendTo is a collection of sums with two attributes, in resources of
// twenty series.
func BenchmarkAppendTo(b *testing.B) {
	for _, n := range []int{100, 2_000, 20_000} {
		b.Run(fmt.Sprint("sum/", n), func(b *testing.B) {
			m := NewMetrics(testMetadata(b), Options{})
			calls := m.Counter("test.calls")
			points := make([]*Point, n)
			var r *Resource
			for i := range n {
				if i%20 == 0 {
					r = NewResource(String("container.id", fmt.Sprint(i)))
				}
				points[i] = calls.At(r, String("color", "red"), Int("number", int64(i)))
			}
			benchmarkAppendTo(b, m, n, func() {
				for _, p := range points {
					p.Add(1)
				}
			})
		})
		b.Run(fmt.Sprint("histogram/", n), func(b *testing.B) {
			m := NewMetrics(testMetadata(b), Options{Scale: 1})
			h := m.Histogram("test.duration")
			points := make([]*HistogramPoint, n)
			for i := range n {
				points[i] = h.At(nil, String("color", fmt.Sprint(i)))
			}
			slots, sum, minimum, maximum := record(1, 1e3, 5e3, 1e4, 1e6, 1e7)
			benchmarkAppendTo(b, m, n, func() {
				for _, p := range points {
					p.Merge(slots, sum, minimum, maximum)
				}
			})
		})
	}
}

func benchmarkAppendTo(b *testing.B, m *Metrics, n int, update func()) {
	b.ReportAllocs()
	var updating time.Duration
	for b.Loop() {
		begin := time.Now()
		update()
		updating += time.Since(begin)
		m.AppendTo(NewBatch(begin))
	}
	perSeries := float64(b.N) * float64(n)
	b.ReportMetric(float64(updating.Nanoseconds())/perSeries, "update-ns/series")
	b.ReportMetric(float64((b.Elapsed()-updating).Nanoseconds())/perSeries, "append-ns/series")
}

// BenchmarkAt is the lookup of a series that exists.
func BenchmarkAt(b *testing.B) {
	calls := NewMetrics(testMetadata(b), Options{}).Counter("test.calls")
	r := NewResource()
	b.ReportAllocs()
	for b.Loop() {
		calls.At(r, String("color", "red"), Int("number", 7)).Add(1)
	}
}

// BenchmarkLogs is a record of seven attributes in batches of 512, about eight
// containers in turn.
func BenchmarkLogs(b *testing.B) {
	ctx := context.Background()
	l := NewLogs(testMetadata(b), Options{}, func(context.Context, plog.Logs) error { return nil })
	k := l.Event("test.happened")
	resources := make([]*Resource, 8)
	for i := range resources {
		resources[i] = NewResource(String("container.id", fmt.Sprint(i)))
	}
	now := pcommon.NewTimestampFromTime(time.Now())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := k.Append(resources[i/4%len(resources)], now, now, "/usr/bin/env", 7)
		r.Int("process.pid", int64(i))
		r.Int("process.parent_pid", int64(i))
		r.String("process.executable.path", "/usr/bin/env")
		r.String("process.executable.name", "env")
		r.Int("process.user.id", 1000)
		r.String("cgroup.path", "/system.slice/ssh.service")
		r.Bool("process.truncated", false)
		if l.Full() {
			if err := l.Flush(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkHistogramSlot is the Go twin; the kernel's cost is measured there.
func BenchmarkHistogramSlot(b *testing.B) {
	slot, ns := 0, uint64(1)
	for b.Loop() {
		slot += HistogramSlot(3, ns)
		ns += 1_000_003
	}
	if slot == 0 {
		b.Fatal("nothing measured")
	}
}
