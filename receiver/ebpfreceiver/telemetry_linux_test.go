package ebpfreceiver

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/testutil"
	"otelcol-ebpf/receiver/ebpfreceiver/internal/metadatatest"
)

func point[N int64 | float64](value N, pairs ...string) metricdata.DataPoint[N] {
	var attributes []attribute.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		attributes = append(attributes, attribute.String(pairs[i], pairs[i+1]))
	}
	return metricdata.DataPoint[N]{Attributes: attribute.NewSet(attributes...), Value: value}
}

// TestOwnTelemetry compares what the receiver says of itself with what its
// consumer has seen.
func TestOwnTelemetry(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	tt := componenttest.NewTelemetry()
	t.Cleanup(func() { require.NoError(t, tt.Shutdown(context.Background())) })
	path := program(t)
	u := create(t, NewFactory(), metadatatest.NewSettings(tt), newConfig(t, execsOnly+"program_statistics: true"), "metrics logs")
	u.start(t)
	for range 5 {
		run(t, path)
	}
	eventually(t, "the records", func() bool { return u.out.saw(path) == 5 })
	eventually(t, "a collection", func() bool { return u.out.collections() >= 2 })

	now, whatever := metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreValue()
	metadatatest.AssertEqualReceiverEbpfEventsRead(t, tt, []metricdata.DataPoint[int64]{point[int64](0, "probe", "process")}, now, whatever)
	metadatatest.AssertEqualReceiverEbpfEventsLost(t, tt, []metricdata.DataPoint[int64]{
		point[int64](0, "probe", "process", "reason", "ring_full"),
		point[int64](0, "probe", "process", "reason", "rate_limited"),
		point[int64](0, "probe", "process", "reason", "decode_error"),
		point[int64](0, "probe", "process", "reason", "consumer_refused"),
		point[int64](0, "probe", "process", "reason", "skipped"),
	}, now)
	metadatatest.AssertEqualReceiverEbpfCollectDuration(t, tt, []metricdata.DataPoint[float64]{point[float64](0, "probe", "process")}, now, whatever)
	table := u.observation(t, "process").Tables["counts"]
	metadatatest.AssertEqualReceiverEbpfMapEntries(t, tt, []metricdata.DataPoint[int64]{point[int64](0, "probe", "process", "map", "counts")}, now, whatever)
	metadatatest.AssertEqualReceiverEbpfMapCapacity(t, tt, []metricdata.DataPoint[int64]{
		point(int64(table.Capacity), "probe", "process", "map", "counts"),
	}, now)
	if table.Entries == 0 || table.Entries > table.Capacity || table.Capacity < 2000 {
		t.Errorf("map entries %d of %d", table.Entries, table.Capacity)
	}
	checkStateAndPrograms(t, tt, u)

	u.stop(t)
	checkObsReport(t, tt, "otelcol_receiver_accepted_log_records", u.out.records)
	checkObsReport(t, tt, "otelcol_receiver_refused_log_records", 0)
	checkObsReport(t, tt, "otelcol_receiver_accepted_metric_points", u.out.points)
	checkObsReport(t, tt, "otelcol_receiver_refused_metric_points", 0)
	if o := u.observation(t, "process"); o.Delivered != uint64(u.out.records) || o.Read != o.Delivered {
		t.Errorf("read %d, delivered %d, the consumer has %d", o.Read, o.Delivered, u.out.records)
	}
	if _, err := tt.GetMetric("otelcol_receiver_ebpf_events_read"); err == nil {
		t.Error("a receiver that was shut down still reports")
	}
}

func checkStateAndPrograms(t *testing.T, tt *componenttest.Telemetry, u unit) {
	t.Helper()
	o := u.observation(t, "process")
	hook, program := "tp_btf/sched_process_exec", "sched_process_exec"
	if load.PreemptibleTracing() {
		hook, program = "tracepoint/sched/sched_process_exec", "raw_sched_process_exec"
	}
	if !slices.Contains(o.Hooks, hook) {
		t.Errorf("hooks %v", o.Hooks)
	}
	var states []metricdata.DataPoint[int64]
	for _, hook := range o.Hooks {
		states = append(states, point[int64](1, "probe", "process", "state", string(o.State), "hook", hook))
	}
	metadatatest.AssertEqualReceiverEbpfProbeState(t, tt, states, metricdatatest.IgnoreTimestamp())

	runs, err := tt.GetMetric("otelcol_receiver_ebpf_program_runs")
	require.NoError(t, err)
	seconds, err := tt.GetMetric("otelcol_receiver_ebpf_program_time")
	require.NoError(t, err)
	found := false
	for _, p := range runs.Data.(metricdata.Sum[int64]).DataPoints {
		name, _ := p.Attributes.Value("program")
		if name.AsString() != program {
			continue
		}
		found = true
		if p.Value < 5 {
			t.Errorf("%s ran %d times, at least 5 programs were executed", name.AsString(), p.Value)
		}
	}
	for _, p := range seconds.Data.(metricdata.Sum[float64]).DataPoints {
		if name, _ := p.Attributes.Value("program"); name.AsString() == program && (p.Value <= 0 || p.Value > 1) {
			t.Errorf("%s took %v s", program, p.Value)
		}
	}
	if !found {
		t.Errorf("no statistics of %s", program)
	}
}

// checkObsReport adds up a metric of the Collector's own.
func checkObsReport(t *testing.T, tt *componenttest.Telemetry, name string, want int) {
	t.Helper()
	metric, err := tt.GetMetric(name)
	require.NoError(t, err)
	total := int64(0)
	for _, p := range metric.Data.(metricdata.Sum[int64]).DataPoints {
		total += p.Value
	}
	if total != int64(want) {
		t.Errorf("%s is %d, want %d", name, total, want)
	}
}
