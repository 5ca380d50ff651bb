// Package config is the receiver's configuration: its keys, their defaults, how
// they are read and what is refused. It touches no kernel state and needs no
// privilege, on any operating system.
package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"go.opentelemetry.io/collector/confmap"

	"otelcol-ebpf/internal/probe"
)

// Config is what stands under the receiver's id. Make one with New.
type Config struct {
	// CollectionInterval is the time between two collections of metrics.
	CollectionInterval time.Duration `mapstructure:"collection_interval"`
	// InitialDelay is the time from the start to the first collection.
	InitialDelay time.Duration `mapstructure:"initial_delay"`
	// ErrorMode says what a probe that cannot start does: ignore or propagate.
	ErrorMode string `mapstructure:"error_mode"`
	// RootPath is where the host's root is mounted.
	RootPath string `mapstructure:"root_path"`
	// Scope is the finest resource that metrics are split by: host, container or process.
	Scope string `mapstructure:"scope"`
	// Histogram is the form in which histograms leave: exponential or explicit.
	Histogram string `mapstructure:"histogram"`
	// HistogramScale is the scale of the kernel's histograms, 0 to 3: their buckets
	// are 2^(2^-scale) wide.
	HistogramScale int `mapstructure:"histogram_scale"`
	// EventLinger is the longest time that an event waits in the kernel's ring
	// buffer for others to come along.
	EventLinger time.Duration `mapstructure:"event_linger"`
	// ProgramStatistics measures the run time of every BPF program, which costs each
	// run some 70 ns.
	ProgramStatistics bool `mapstructure:"program_statistics"`
	// Limits bound what the receiver takes and emits.
	Limits Limits `mapstructure:"limits"`

	// types are the kinds of probe that there are, probes those that run. Both are
	// kept from the reflection of others, which would validate them twice.
	types  []probe.Type
	probes []Probe
}

// Limits bound memory and output.
type Limits struct {
	// MaxSeries is the number of series of each metric; further keys share one.
	MaxSeries int `mapstructure:"max_series"`
	// SeriesExpiry is how long a series may stay unchanged before it is dropped; 0
	// keeps all.
	SeriesExpiry time.Duration `mapstructure:"series_expiry"`
	// RingBuffer is the size of each probe's ring buffer: 4MiB, 65536.
	RingBuffer Size `mapstructure:"ring_buffer"`
	// MaxEventsPerSecond is the rate limit of each probe's events; 0 is none.
	MaxEventsPerSecond int `mapstructure:"max_events_per_second"`
	// MaxProcesses is the number of processes whose facts are remembered.
	MaxProcesses int `mapstructure:"max_processes"`
}

// Probe is one probe that runs.
type Probe struct {
	Type   probe.Type
	Config probe.Config
	// Enabled overrides metadata.yaml's word for metrics and events, by name.
	Enabled map[string]bool
}

// Size is a number of bytes. As text it may have a unit: 64KiB, 4MiB, 1MB.
type Size uint64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a size: want bytes, or a number with a unit such as 64KiB or 4MiB", text)
	}
	*s = Size(n)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d", uint64(s)), nil
}

// Bounds of what is accepted.
const (
	minInterval   = 100 * time.Millisecond
	maxInterval   = 10 * time.Minute // histogram slots wrap at 2^32 between two collections
	maxLinger     = 100 * time.Millisecond
	maxScale      = 3
	minRing       = 4 << 10
	maxRing       = 1 << 30
	maxMaxSeries  = 100_000
	maxEventRate  = 1_000_000_000
	minProcesses  = 256
	maxProcesses  = 4 << 20
	defaultProbes = "the default set runs when `probes:` is omitted"
	keyProbes     = "probes"
	keyMetrics    = "metrics"
	keyEvents     = "events"
	keyEnabled    = "enabled"
)

// New returns the default configuration for the given kinds of probe.
func New(types []probe.Type) *Config {
	c := &Config{
		CollectionInterval: 15 * time.Second,
		InitialDelay:       time.Second,
		ErrorMode:          "ignore",
		RootPath:           "/",
		Scope:              "container",
		Histogram:          "exponential",
		EventLinger:        100 * time.Millisecond,
		Limits: Limits{
			MaxSeries:          2000,
			SeriesExpiry:       5 * time.Minute,
			RingBuffer:         4 << 20,
			MaxEventsPerSecond: 10000,
			MaxProcesses:       32768,
		},
		types: types,
	}
	for _, t := range types {
		if t.Metadata.Default {
			c.probes = append(c.probes, Probe{Type: t, Config: t.NewConfig()})
		}
	}
	return c
}

// Probes are the probes that run, in the order of New's types.
func (c *Config) Probes() []Probe { return c.probes }

// Unmarshal implements confmap.Unmarshaler. Unknown keys are refused; a key without
// a value keeps its default.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	values := conf.ToStringMap()
	probes, set := values[keyProbes]
	delete(values, keyProbes)
	// A copy: what the Collector handed in is not ours to change.
	rest := confmap.New()
	if err := rest.Merge(conf); err != nil {
		return err
	}
	rest.Delete(keyProbes)
	// Another type without this method, so that the decoder does not come back here.
	type plain Config
	errs := []error{decode("", values, rest, (*plain)(c), keyProbes)}
	if set {
		errs = append(errs, c.unmarshalProbes(probes, conf))
	}
	return errors.Join(errs...)
}

// decode decodes conf, whose values are given too, into the struct that target
// points to, unless values are wrong. Path is where they stand.
func decode(path string, values map[string]any, conf *confmap.Conf, target any, further ...string) error {
	check := checker{}
	check.object(path, values, reflect.TypeOf(target).Elem(), further...)
	if len(check.errs) > 0 {
		return errors.Join(append(check.errs, check.doubts...)...)
	}
	dropNull(conf, "", values)
	err := conf.Unmarshal(target)
	switch {
	case err == nil:
		return nil
	case len(check.doubts) > 0:
		return errors.Join(check.doubts...)
	case path == "":
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// dropNull deletes keys without a value, which the decoder would set to zero.
func dropNull(conf *confmap.Conf, path string, values map[string]any) {
	for key, value := range values {
		switch value := value.(type) {
		case nil:
			conf.Delete(join(path, key))
		case map[string]any:
			dropNull(conf, join(path, key), value)
		}
	}
}

func (c *Config) unmarshalProbes(value any, conf *confmap.Conf) error {
	probes, ok := value.(map[string]any)
	if value != nil && !ok {
		return fmt.Errorf("%s: want a map from probes to their settings, got %s", keyProbes, describe(value))
	}
	if len(probes) == 0 {
		return fmt.Errorf("%s: empty: name at least one of %s, or leave the key out (%s)",
			keyProbes, strings.Join(c.typeNames(), ", "), defaultProbes)
	}
	var errs []error
	for _, name := range sortedKeys(probes) {
		if !slices.Contains(c.typeNames(), name) {
			errs = append(errs, fmt.Errorf("%s: there is no such probe: want %s",
				join(keyProbes, name), oneOf(c.typeNames(), "none, for there are no probes")))
		}
	}
	c.probes = nil
	for _, t := range c.types {
		settings, ok := probes[t.Metadata.Type]
		if !ok {
			continue
		}
		p, err := unmarshalProbe(t, settings, conf)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.probes = append(c.probes, p)
	}
	return errors.Join(errs...)
}

func (c *Config) typeNames() []string {
	names := make([]string, len(c.types))
	for i, t := range c.types {
		names[i] = t.Metadata.Type
	}
	return names
}

// unmarshalProbe reads one probe's settings, which conf has below probes.
func unmarshalProbe(t probe.Type, settings any, conf *confmap.Conf) (Probe, error) {
	path := join(keyProbes, t.Metadata.Type)
	values, ok := settings.(map[string]any)
	if settings != nil && !ok {
		return Probe{}, fmt.Errorf("%s: want a map of settings, got %s", path, describe(settings))
	}
	p := Probe{Type: t, Config: t.NewConfig(), Enabled: map[string]bool{}}
	errs := []error{
		switches(p.Enabled, join(path, keyMetrics), values[keyMetrics], sortedKeys(t.Metadata.Metrics)),
		switches(p.Enabled, join(path, keyEvents), values[keyEvents], sortedKeys(t.Metadata.Events)),
	}
	if len(values) == 0 {
		return p, nil // Null or {}: the defaults.
	}
	delete(values, keyMetrics)
	delete(values, keyEvents)
	own, err := conf.Sub(path)
	if err != nil {
		return Probe{}, err
	}
	own.Delete(keyMetrics)
	own.Delete(keyEvents)
	errs = append(errs, decode(path, values, own, p.Config, keyMetrics, keyEvents))
	return p, errors.Join(errs...)
}

// switches reads what mdatagen calls metrics and events settings: a map from the
// name to {enabled: bool}.
func switches(into map[string]bool, path string, value any, known []string) error {
	entries, ok := value.(map[string]any)
	if value != nil && !ok {
		return fmt.Errorf("%s: want a map from names to {enabled: true} or {enabled: false}, got %s", path, describe(value))
	}
	var errs []error
	for _, name := range sortedKeys(entries) {
		if !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("%s: there is no such name: want %s",
				join(path, name), oneOf(known, "none, for the probe has none")))
			continue
		}
		setting, ok := entries[name].(map[string]any)
		enabled, isBool := setting[keyEnabled].(bool)
		if !ok || !isBool || len(setting) != 1 {
			errs = append(errs, fmt.Errorf("%s: want {enabled: true} or {enabled: false}", join(path, name)))
			continue
		}
		into[name] = enabled
	}
	return errors.Join(errs...)
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

// Marshal implements confmap.Marshaler: what `print-config` shows names the probes
// that run, with all their settings. It has a value receiver because the encoder
// follows pointers before it asks.
func (c Config) Marshal(conf *confmap.Conf) error {
	type plain Config
	if err := conf.Marshal(plain(c)); err != nil {
		return err
	}
	probes := map[string]any{}
	for _, p := range c.probes {
		own := confmap.New()
		if err := own.Marshal(p.Config); err != nil {
			return fmt.Errorf("%s: %w", join(keyProbes, p.Type.Metadata.Type), err)
		}
		settings := own.ToStringMap()
		for name, enabled := range p.Enabled {
			key := keyEvents
			if _, ok := p.Type.Metadata.Metrics[name]; ok {
				key = keyMetrics
			}
			if settings[key] == nil {
				settings[key] = map[string]any{}
			}
			settings[key].(map[string]any)[name] = map[string]any{keyEnabled: enabled}
		}
		probes[p.Type.Metadata.Type] = settings
	}
	return conf.Merge(confmap.NewFromStringMap(map[string]any{keyProbes: probes}))
}

// Validate implements confmap.Validator. Each error begins with its key's path.
func (c *Config) Validate() error {
	v := validator{}
	v.between("collection_interval", c.CollectionInterval, minInterval, maxInterval)
	v.between("initial_delay", c.InitialDelay, 0, maxInterval)
	v.oneOf("error_mode", c.ErrorMode, "ignore", "propagate")
	v.oneOf("scope", c.Scope, "host", "container", "process")
	v.oneOf("histogram", c.Histogram, "exponential", "explicit")
	v.inRange("histogram_scale", c.HistogramScale, 0, maxScale)
	v.between("event_linger", c.EventLinger, 0, maxLinger)
	if !filepath.IsAbs(c.RootPath) && !strings.HasPrefix(c.RootPath, "/") {
		v.add("root_path", "%q is not an absolute path", c.RootPath)
	}
	v.inRange("limits::max_series", c.Limits.MaxSeries, 1, maxMaxSeries)
	if c.Limits.SeriesExpiry != 0 && c.Limits.SeriesExpiry < c.CollectionInterval {
		v.add("limits::series_expiry", "%s is less than collection_interval (%s): want 0 for never, or at least that",
			c.Limits.SeriesExpiry, c.CollectionInterval)
	}
	if ring := c.Limits.RingBuffer; ring < minRing || ring > maxRing || ring&(ring-1) != 0 {
		v.add("limits::ring_buffer", "%d bytes: want a power of two from 4KiB to 1GiB", ring)
	}
	v.inRange("limits::max_events_per_second", c.Limits.MaxEventsPerSecond, 0, maxEventRate)
	v.inRange("limits::max_processes", c.Limits.MaxProcesses, minProcesses, maxProcesses)
	for _, p := range c.probes {
		if err := p.Config.Validate(); err != nil {
			v.errs = append(v.errs, fmt.Errorf("%s::%s::%w", keyProbes, p.Type.Metadata.Type, err))
		}
	}
	return errors.Join(v.errs...)
}

type validator struct{ errs []error }

func (v *validator) add(key, format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

func (v *validator) between(key string, d, low, high time.Duration) {
	if d < low || d > high {
		v.add(key, "%s is out of range: want %s to %s", d, low, high)
	}
}

func (v *validator) inRange(key string, n, low, high int) {
	if n < low || n > high {
		v.add(key, "%d is out of range: want %d to %d", n, low, high)
	}
}

func (v *validator) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.add(key, "%q is not known: want one of %s", value, strings.Join(allowed, ", "))
	}
}
