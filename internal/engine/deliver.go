//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"
)

// format is what ObsReport calls the data's origin.
const format = "ebpf"

// Retry says how long data are offered to a consumer that refuses them for now.
// Meanwhile a probe's ring buffer takes what comes, and counts what no longer fits.
type Retry struct {
	// First is the time before the second try; each further one is twice as long, up
	// to Longest.
	First, Longest time.Duration
	// Total is how long one batch is offered.
	Total time.Duration
}

func (r Retry) withDefaults() Retry {
	if r.First == 0 {
		r.First = 50 * time.Millisecond
	}
	if r.Longest == 0 {
		r.Longest = time.Second
	}
	if r.Total == 0 {
		r.Total = 5 * time.Second
	}
	return r
}

// logSink hands a probe's batches to the consumer of logs. What it refuses for
// good, or for longer than Retry allows, is counted as lost and no error: the probe
// goes on.
func (e *Engine) logSink(r *runner) func(context.Context, plog.Logs) error {
	return func(_ context.Context, logs plog.Logs) error {
		records := logs.LogRecordCount()
		op := e.settings.Observe.StartLogsOp(e.deliverCtx)
		refused, err := e.offerLogs(op, logs)
		if taken := records - refused; err != nil && taken > 0 {
			e.settings.Observe.EndLogsOp(op, format, taken, nil)
			op = e.settings.Observe.StartLogsOp(e.deliverCtx)
			records = refused
			r.delivered.Add(uint64(taken))
		}
		e.settings.Observe.EndLogsOp(op, format, records, err)
		const trouble = "logs consumer"
		if err == nil {
			r.delivered.Add(uint64(records))
			if e.status.resolved(trouble) {
				e.logger.Info("Log records are taken again", zap.String("probe", r.name), zap.Uint64("lost so far", r.refused.Load()))
			}
			return nil
		}
		r.refused.Add(uint64(refused))
		if e.status.recoverable(trouble, fmt.Errorf("log records are refused: %w", err)) {
			e.logger.Warn("Log records are refused and lost", zap.String("probe", r.name),
				zap.Int("records", refused), zap.Bool("permanent", consumererror.IsPermanent(err)), zap.Error(err))
		}
		return nil
	}
}

// offerLogs offers a batch and tells how many of its records were refused.
func (e *Engine) offerLogs(ctx context.Context, logs plog.Logs) (refused int, err error) {
	left, n := logs, logs.LogRecordCount()
	mutates := e.settings.Logs.Capabilities().MutatesData
	err = e.offer(ctx, e.settings.Retry.Total, func() error {
		given := left
		if mutates {
			// What a consumer that refuses has changed cannot be offered again.
			given = plog.NewLogs()
			left.CopyTo(given)
		}
		err := e.settings.Logs.ConsumeLogs(ctx, given)
		var part consumererror.Logs
		if errors.As(err, &part) {
			left, n = part.Data(), part.Data().LogRecordCount()
		}
		return err
	})
	if err == nil {
		n = 0
	}
	return n, err
}

// deliverMetrics hands a collection on. What the consumer refuses is offered again
// until the next one is due, which contains it: sums are cumulative.
func (e *Engine) deliverMetrics(metrics pmetric.Metrics) {
	points := metrics.DataPointCount()
	if points == 0 {
		return
	}
	op := e.settings.Observe.StartMetricsOp(e.deliverCtx)
	refused, err := e.offerMetrics(op, metrics)
	if taken := points - refused; err != nil && taken > 0 {
		e.settings.Observe.EndMetricsOp(op, format, taken, nil)
		op = e.settings.Observe.StartMetricsOp(e.deliverCtx)
		points = refused
	}
	e.settings.Observe.EndMetricsOp(op, format, points, err)
	const trouble = "metrics consumer"
	if err == nil {
		if e.status.resolved(trouble) {
			e.logger.Info("Metrics are taken again")
		}
		return
	}
	if e.status.recoverable(trouble, fmt.Errorf("metrics are refused: %w", err)) {
		e.logger.Warn("Metrics are refused; later collections contain their sums",
			zap.Int("points", refused), zap.Bool("permanent", consumererror.IsPermanent(err)), zap.Error(err))
	}
}

// offerMetrics is offerLogs for data points.
func (e *Engine) offerMetrics(ctx context.Context, metrics pmetric.Metrics) (refused int, err error) {
	left, n := metrics, metrics.DataPointCount()
	mutates := e.settings.Metrics.Capabilities().MutatesData
	total := min(e.settings.Retry.Total, e.settings.Config.CollectionInterval)
	err = e.offer(ctx, total, func() error {
		given := left
		if mutates {
			given = pmetric.NewMetrics()
			left.CopyTo(given)
		}
		err := e.settings.Metrics.ConsumeMetrics(ctx, given)
		var part consumererror.Metrics
		if errors.As(err, &part) {
			left, n = part.Data(), part.Data().DataPointCount()
		}
		return err
	})
	if err == nil {
		n = 0
	}
	return n, err
}

// offer calls consume until it succeeds, refuses for good, or the total time, the
// context or the time for further tries ends.
func (e *Engine) offer(ctx context.Context, total time.Duration, consume func() error) error {
	backoff := e.settings.Retry.First
	deadline := time.Now().Add(total)
	for {
		err := consume()
		if err != nil && ctx.Err() != nil {
			e.cutShort.Store(true)
		}
		if err == nil || consumererror.IsPermanent(err) || e.retryCtx.Err() != nil || time.Now().Add(backoff).After(deadline) {
			return err
		}
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
		case <-e.retryCtx.Done():
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			e.cutShort.Store(true)
			return err
		}
		backoff = min(2*backoff, e.settings.Retry.Longest)
	}
}
