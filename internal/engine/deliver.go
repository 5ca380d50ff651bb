//go:build linux

package engine

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/zap"
)

// How long records are offered to a consumer that refuses them for now. Meanwhile
// the probe's ring buffer takes what comes, and counts what no longer fits.
const (
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = time.Second
	maxRetry     = 5 * time.Second
)

// logSink hands a probe's batches to the consumer of logs. What it refuses for
// good, or for longer than maxRetry, is counted as lost and no error: the probe
// goes on.
func (e *Engine) logSink(r *runner) func(context.Context, plog.Logs) error {
	return func(_ context.Context, logs plog.Logs) error {
		records := logs.LogRecordCount()
		op := e.settings.Observe.StartLogsOp(e.deliverCtx)
		err := e.offer(op, logs)
		e.settings.Observe.EndLogsOp(op, format, records, err)
		if err == nil {
			r.delivered.Add(uint64(records))
			e.status.resolved("logs consumer")
			return nil
		}
		r.refused.Add(uint64(records))
		e.status.recoverable("logs consumer", fmt.Errorf("log records were refused: %w", err))
		e.logger.Warn("Log records were refused and are lost", zap.String("probe", r.name),
			zap.Int("records", records), zap.Bool("permanent", consumererror.IsPermanent(err)), zap.Error(err))
		return nil
	}
}

// offer calls the consumer until it takes the batch, refuses it for good, or
// maxRetry or the context ends.
func (e *Engine) offer(ctx context.Context, logs plog.Logs) error {
	backoff := firstBackoff
	deadline := time.Now().Add(maxRetry)
	for {
		// A consumer that refuses may have changed what it owns: it gets a copy as
		// long as there may be another try.
		attempt := logs
		if e.mutates() {
			attempt = plog.NewLogs()
			logs.CopyTo(attempt)
		}
		err := e.settings.Logs.ConsumeLogs(ctx, attempt)
		if err == nil || consumererror.IsPermanent(err) || time.Now().Add(backoff).After(deadline) {
			return err
		}
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// mutates tells whether the consumer changes the data that it is given.
func (e *Engine) mutates() bool { return e.settings.Logs.Capabilities().MutatesData }
