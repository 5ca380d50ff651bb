package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"

	"otelcol-ebpf/bpf"
	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/engine"
)

// receiver is the process that the receiver's engine runs in, with consumers that
// count and throw away.
type receiver struct {
	engine     *engine.Engine
	collection *collection

	records, attributes, collections, points, resources atomic.Int64
}

func (r *receiver) handle(q request) (values, error) {
	switch q.Do {
	case "start":
		return nil, r.start(q.Conf)
	case "stop":
		return r.stop()
	case "observe":
		return r.observe(), nil
	case "ring":
		return readRing(q)
	case "collect-start":
		var err error
		r.collection, err = startCollection(q.Count, q.Conf["latency"] == true)
		return nil, err
	case "collect":
		return r.collection.collect()
	case "collect-stop":
		return nil, r.collection.close()
	}
	return nil, errors.New("unknown request")
}

// start runs an engine with a configuration that deviates from the default so.
func (r *receiver) start(overrides map[string]any) error {
	c := config.New(bpf.All())
	conf := map[string]any{"error_mode": "propagate"}
	maps.Copy(conf, overrides)
	if err := confmap.NewFromStringMap(conf).Unmarshal(c); err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	metrics, err := consumer.NewMetrics(r.countMetrics)
	if err != nil {
		return err
	}
	logs, err := consumer.NewLogs(r.countLogs)
	if err != nil {
		return err
	}
	r.records.Store(0)
	r.collections.Store(0)
	r.engine = engine.New(engine.Settings{
		Logger: zap.NewNop(), Config: c, Version: "bench", Metrics: metrics, Logs: logs, Observe: silent{},
	})
	if err := r.engine.Start(context.Background()); err != nil {
		r.engine = nil
		return err
	}
	r.engine.Run()
	return nil
}

// stop ends the engine and returns its last counts.
func (r *receiver) stop() (values, error) {
	if r.engine == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := r.engine.Shutdown(ctx)
	result := r.observe()
	r.engine = nil
	return result, err
}

func (r *receiver) finish() {
	if _, err := r.stop(); err != nil {
		fmt.Println(err)
	}
	if r.collection != nil {
		_ = r.collection.close()
	}
}

// observe sums up the probes' own counts, and adds the consumers'.
func (r *receiver) observe() values {
	v := values{
		"records": float64(r.records.Load()), "attributes": float64(r.attributes.Load()),
		"collections": float64(r.collections.Load()), "points": float64(r.points.Load()),
		"resources": float64(r.resources.Load()), "mallocs": float64(mallocs()), "gc": collectorTime(),
	}
	for _, o := range r.engine.Observe() {
		v["produced"] += float64(o.Produced)
		v["read"] += float64(o.Read)
		for reason, n := range o.Lost {
			v["lost"] += float64(n)
			v[reason] += float64(n)
		}
	}
	return v
}

func (r *receiver) countMetrics(_ context.Context, metrics pmetric.Metrics) error {
	r.collections.Add(1)
	r.points.Store(int64(metrics.DataPointCount()))
	r.resources.Store(int64(metrics.ResourceMetrics().Len()))
	return nil
}

func (r *receiver) countLogs(_ context.Context, logs plog.Logs) error {
	r.records.Add(int64(logs.LogRecordCount()))
	first := logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	r.attributes.Store(int64(first.Attributes().Len()))
	return nil
}

// silent observes nothing.
type silent struct{}

func (silent) StartMetricsOp(ctx context.Context) context.Context { return ctx }
func (silent) EndMetricsOp(context.Context, string, int, error)   {}
func (silent) StartLogsOp(ctx context.Context) context.Context    { return ctx }
func (silent) EndLogsOp(context.Context, string, int, error)      {}
