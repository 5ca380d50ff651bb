//go:build linux

package engine

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"otelcol-ebpf/internal/otlp"
)

// collectLoop collects after the initial delay, every interval, and once more when
// the engine stops.
func (e *Engine) collectLoop() {
	// The streams end first: then the kernel counts no further event.
	defer func() {
		e.streams.Wait()
		e.identity.Final()
		e.collect(time.Now())
	}()
	delay := time.NewTimer(e.settings.Config.InitialDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
		e.collect(time.Now())
	case <-e.runCtx.Done():
		return
	}
	ticker := time.NewTicker(e.settings.Config.CollectionInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.collect(time.Now())
		case <-e.runCtx.Done():
			return
		}
	}
}

// collect reads every probe once and hands the result on.
func (e *Engine) collect(now time.Time) {
	if err := e.clock.Measure(); err != nil {
		e.logger.Warn("The clock could not be measured", zap.Error(err))
	}
	batch := otlp.NewBatch(now)
	e.read(batch)
	e.deliverMetrics(batch.Metrics())
}

// read reads the probes, unless they have been released.
func (e *Engine) read(batch *otlp.Batch) {
	e.kernelMu.Lock()
	defer e.kernelMu.Unlock()
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
		r.collectFails.Store(err != nil)
		trouble := "collect " + r.name
		switch {
		case err == nil:
			e.status.resolved(trouble)
		case e.status.recoverable(trouble, fmt.Errorf("probe %s: %w", r.name, err)):
			e.logger.Error("Collections fail", zap.String("probe", r.name), zap.Error(err))
		}
		// What was read before an error is part of the totals all the same.
		r.metrics.AppendTo(batch)
	}
}
