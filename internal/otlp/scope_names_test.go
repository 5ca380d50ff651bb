package otlp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"otelcol-ebpf/internal/metadata"
)

// TestScopeNames gives a metric the name that its scope has in the conventions.
func TestScopeNames(t *testing.T) {
	meta := metadata.Metadata{Type: "test", Metrics: map[string]metadata.Metric{"linux.thing": {
		Enabled: true, Description: "Things.", Unit: "{thing}",
		ScopeNames: map[string]string{"process": "process.thing"},
		Sum:        &metadata.Sum{ValueType: "int", Monotonic: true, AggregationTemporality: "cumulative"},
	}}}
	for scope, want := range map[string]string{"": "linux.thing", "container": "linux.thing", "process": "process.thing"} {
		m := NewMetrics(meta, Options{Scope: scope})
		m.Counter("linux.thing").At(nil).Add(1)
		batch := NewBatch(time.Now())
		m.AppendTo(batch)
		metrics := batch.Metrics()
		require.NoError(t, CheckMetrics(meta, metrics))
		assert.Equal(t, want, metrics.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Name())
	}
}
