package ebpfreceiver

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"otelcol-ebpf/internal/engine"
	"otelcol-ebpf/receiver/ebpfreceiver/internal/metadata"
)

// registerTelemetry makes the receiver's own telemetry read the engine whenever
// it is collected.
func registerTelemetry(set component.TelemetrySettings, e *engine.Engine) (*metadata.TelemetryBuilder, error) {
	b, err := metadata.NewTelemetryBuilder(set)
	if err != nil {
		return nil, err
	}
	each := func(visit func(engine.Observation)) {
		for _, o := range e.Observe() {
			visit(o)
		}
	}
	err = errors.Join(
		b.RegisterReceiverEbpfEventsReadCallback(func(_ context.Context, out metric.Int64Observer) error {
			each(func(o engine.Observation) {
				if o.Lost != nil {
					out.Observe(int64(o.Read), attributes("probe", o.Probe))
				}
			})
			return nil
		}),
		b.RegisterReceiverEbpfEventsLostCallback(func(_ context.Context, out metric.Int64Observer) error {
			each(func(o engine.Observation) {
				for reason, n := range o.Lost {
					out.Observe(int64(n), attributes("probe", o.Probe, "reason", reason))
				}
			})
			return nil
		}),
		b.RegisterReceiverEbpfProbeStateCallback(func(_ context.Context, out metric.Int64Observer) error {
			each(func(o engine.Observation) { observeState(out, o) })
			return nil
		}),
		b.RegisterReceiverEbpfCollectDurationCallback(func(_ context.Context, out metric.Float64Observer) error {
			each(func(o engine.Observation) {
				if o.CollectDuration > 0 {
					out.Observe(o.CollectDuration.Seconds(), attributes("probe", o.Probe))
				}
			})
			return nil
		}),
		b.RegisterReceiverEbpfIdentityUnknownCallback(func(_ context.Context, out metric.Int64Observer) error {
			out.Observe(int64(e.ObserveIdentity().Unknown))
			return nil
		}),
		b.RegisterReceiverEbpfIdentityEventsLostCallback(func(_ context.Context, out metric.Int64Observer) error {
			out.Observe(int64(e.ObserveIdentity().EventsLost))
			return nil
		}),
		registerMaps(b, each),
		registerPrograms(b, each),
	)
	if err != nil {
		b.Shutdown()
		return nil, err
	}
	return b, nil
}

func observeState(out metric.Int64Observer, o engine.Observation) {
	hooks := o.Hooks
	if len(hooks) == 0 {
		hooks = []string{""}
	}
	for _, hook := range hooks {
		out.Observe(1, attributes("probe", o.Probe, "state", string(o.State), "hook", hook))
	}
}

func registerMaps(b *metadata.TelemetryBuilder, each func(func(engine.Observation))) error {
	observe := func(out metric.Int64Observer, value func(engine.TableObservation) int) {
		each(func(o engine.Observation) {
			for name, table := range o.Tables {
				out.Observe(int64(value(table)), attributes("probe", o.Probe, "map", name))
			}
		})
	}
	return errors.Join(
		b.RegisterReceiverEbpfMapEntriesCallback(func(_ context.Context, out metric.Int64Observer) error {
			observe(out, func(t engine.TableObservation) int { return t.Entries })
			return nil
		}),
		b.RegisterReceiverEbpfMapCapacityCallback(func(_ context.Context, out metric.Int64Observer) error {
			observe(out, func(t engine.TableObservation) int { return t.Capacity })
			return nil
		}),
	)
}

func registerPrograms(b *metadata.TelemetryBuilder, each func(func(engine.Observation))) error {
	return errors.Join(
		b.RegisterReceiverEbpfProgramTimeCallback(func(_ context.Context, out metric.Float64Observer) error {
			each(func(o engine.Observation) {
				for name, p := range o.Programs {
					out.Observe(p.Time.Seconds(), attributes("probe", o.Probe, "program", name))
				}
			})
			return nil
		}),
		b.RegisterReceiverEbpfProgramRunsCallback(func(_ context.Context, out metric.Int64Observer) error {
			each(func(o engine.Observation) {
				for name, p := range o.Programs {
					out.Observe(int64(p.Runs), attributes("probe", o.Probe, "program", name))
				}
			})
			return nil
		}),
	)
}

// attributes makes an attribute set of keys and values in turn.
func attributes(pairs ...string) metric.MeasurementOption {
	set := make([]attribute.KeyValue, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		set = append(set, attribute.String(pairs[i], pairs[i+1]))
	}
	return metric.WithAttributeSet(attribute.NewSet(set...))
}
