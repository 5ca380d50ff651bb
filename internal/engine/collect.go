//go:build linux

package engine

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.uber.org/zap"

	"otelcol-ebpf/internal/otlp"
)

// format is what ObsReport calls the data's origin.
const format = "ebpf"

// collectLoop collects every interval until the engine stops.
func (e *Engine) collectLoop() {
	delay := time.NewTimer(e.settings.Config.InitialDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
		e.collect(e.deliverCtx, time.Now())
	case <-e.runCtx.Done():
		return
	}
	ticker := time.NewTicker(e.settings.Config.CollectionInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.collect(e.deliverCtx, time.Now())
		case <-e.runCtx.Done():
			return
		}
	}
}

// collect reads every probe once and hands the result on. Sums are cumulative, so
// what a consumer refuses is contained in the next collection.
func (e *Engine) collect(ctx context.Context, now time.Time) {
	e.collectMu.Lock()
	defer e.collectMu.Unlock()
	if err := e.clock.Measure(); err != nil {
		e.logger.Warn("The clock could not be measured", zap.Error(err))
	}
	batch := otlp.NewBatch(now)
	e.mu.Lock()
	probes := e.probes
	e.mu.Unlock()
	for _, r := range probes {
		if r.collector == nil {
			continue
		}
		began := time.Now()
		err := r.collector.Collect(r.metrics)
		r.collectNanos.Store(int64(time.Since(began)))
		if err != nil {
			e.status.recoverable("collect "+r.name, fmt.Errorf("probe %s: %w", r.name, err))
			e.logger.Error("A collection failed", zap.String("probe", r.name), zap.Error(err))
		} else {
			e.status.resolved("collect " + r.name)
		}
		// What was read before an error is part of the totals all the same.
		r.metrics.AppendTo(batch)
	}
	e.deliverMetrics(ctx, batch)
}

func (e *Engine) deliverMetrics(ctx context.Context, batch *otlp.Batch) {
	metrics := batch.Metrics()
	points := metrics.DataPointCount()
	if points == 0 {
		return
	}
	op := e.settings.Observe.StartMetricsOp(ctx)
	err := e.settings.Metrics.ConsumeMetrics(op, metrics)
	e.settings.Observe.EndMetricsOp(op, format, points, err)
	if err == nil {
		e.status.resolved("metrics consumer")
		return
	}
	e.status.recoverable("metrics consumer", fmt.Errorf("metrics were refused: %w", err))
	e.logger.Warn("Metrics were refused; the next collection contains them",
		zap.Int("points", points), zap.Bool("permanent", consumererror.IsPermanent(err)), zap.Error(err))
}
