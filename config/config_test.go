package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/probe"
)

// loudConfig has a field of every kind that a probe's configuration may have.
type loudConfig struct {
	Trace   bool          `mapstructure:"trace"`
	Bytes   uint32        `mapstructure:"bytes"`
	Count   int           `mapstructure:"count"`
	Timeout time.Duration `mapstructure:"timeout"`
	Names   []string      `mapstructure:"names"`
	Text    string        `mapstructure:"text"`
	Buffer  Size          `mapstructure:"buffer"`
	Nested  struct {
		Deep bool `mapstructure:"deep"`
	} `mapstructure:"nested"`
}

func (c *loudConfig) Validate() error {
	if c.Bytes > 8192 {
		return fmt.Errorf("bytes: %d is out of range, want 0 to 8192", c.Bytes)
	}
	return nil
}

type quietConfig struct{}

func (*quietConfig) Validate() error { return nil }

// types are two probes: `loud` runs by default and has settings, `quiet` does
// neither.
func types() []probe.Type {
	hook := metadata.Requires{Kernel: "5.10", Hooks: []metadata.Hook{{Name: "tp_btf/x"}}}
	return []probe.Type{
		{
			Metadata: metadata.Metadata{
				Type: "loud", Default: true, Requires: hook,
				Metrics: map[string]metadata.Metric{"linux.loud": {Enabled: true}, "linux.louder": {}},
				Events:  map[string]metadata.Event{"loud.bang": {Enabled: true}},
			},
			NewConfig: func() probe.Config { return &loudConfig{Bytes: 4096, Names: []string{"a"}} },
		},
		{
			Metadata:  metadata.Metadata{Type: "quiet", Requires: hook, Metrics: map[string]metadata.Metric{"linux.quiet": {}}},
			NewConfig: func() probe.Config { return &quietConfig{} },
		},
	}
}

// read does what the Collector does with the text below receivers::ebpf: decode
// and validate.
func read(t testing.TB, text string) (*Config, error) {
	t.Helper()
	var values map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(text), &values), text)
	c := New(types())
	if err := confmap.NewFromStringMap(values).Unmarshal(c); err != nil {
		return nil, err
	}
	return c, validate(c)
}

// validate is how the Collector validates: from the top, with the receiver in a map.
func validate(c *Config) error {
	return confmap.Validate(&struct {
		Receivers map[component.ID]component.Config `mapstructure:"receivers"`
	}{map[component.ID]component.Config{component.MustNewID("ebpf"): c}})
}

func TestDefaults(t *testing.T) {
	for _, text := range []string{"", "{}", "~", "limits:", "limits: {}", "collection_interval:\nlimits:\n  max_series:"} {
		c, err := read(t, text)
		require.NoError(t, err, text)
		want := New(types())
		assert.Equal(t, want.Limits, c.Limits, text)
		assert.Equal(t, want.CollectionInterval, c.CollectionInterval, text)
		require.Len(t, c.Probes(), 1, text)
		assert.Equal(t, "loud", c.Probes()[0].Type.Metadata.Type)
	}
	c := New(types())
	assert.Equal(t, 15*time.Second, c.CollectionInterval)
	assert.Equal(t, time.Second, c.InitialDelay)
	assert.Equal(t, "ignore", c.ErrorMode)
	assert.Equal(t, "/", c.RootPath)
	assert.Equal(t, "container", c.Scope)
	assert.Equal(t, "exponential", c.Histogram)
	assert.Zero(t, c.HistogramScale)
	assert.Equal(t, 100*time.Millisecond, c.EventLinger)
	assert.False(t, c.ProgramStatistics)
	assert.Equal(t, Limits{2000, 5 * time.Minute, 4 << 20, 10000, 32768}, c.Limits)
	assert.NoError(t, validate(c))
}

func TestGood(t *testing.T) {
	c, err := read(t, `
collection_interval: 1m30s
initial_delay: 0
error_mode: propagate
root_path: /host
scope: process
histogram: explicit
histogram_scale: 3
event_linger: 0s
program_statistics: true
limits: {max_series: 1, series_expiry: 0, ring_buffer: 64KiB, max_events_per_second: 0, max_processes: 256}
probes:
  quiet:
  loud:
    trace: true
    bytes: 1
    timeout: 5ms
    names: [b, c]
    buffer: 8KiB
    nested: {deep: true}
    metrics:
      linux.loud: {enabled: false}
      linux.louder: {enabled: true}
    events: {loud.bang: {enabled: false}}
`)
	require.NoError(t, err)
	assert.Equal(t, 90*time.Second, c.CollectionInterval)
	assert.Zero(t, c.InitialDelay)
	assert.Equal(t, "/host", c.RootPath)
	assert.Zero(t, c.EventLinger)
	assert.True(t, c.ProgramStatistics)
	assert.Equal(t, Limits{1, 0, 64 << 10, 0, 256}, c.Limits)
	require.Len(t, c.Probes(), 2)
	// In the order of the types, whatever the order in the text.
	loud, quiet := c.Probes()[0], c.Probes()[1]
	got := loud.Config.(*loudConfig)
	assert.Equal(t, uint32(1), got.Bytes)
	assert.Equal(t, 5*time.Millisecond, got.Timeout)
	assert.Equal(t, []string{"b", "c"}, got.Names)
	assert.Equal(t, Size(8192), got.Buffer)
	assert.True(t, got.Trace && got.Nested.Deep)
	assert.Equal(t, map[string]bool{"linux.loud": false, "linux.louder": true, "loud.bang": false}, loud.Enabled)
	assert.Empty(t, quiet.Enabled)
}

func TestProbeSettingsThatAreAbsentAreDefaults(t *testing.T) {
	for _, text := range []string{
		"probes: {loud: }", "probes: {loud: {}}", "probes: {loud: {bytes: , names: , metrics: , events: {}}}",
	} {
		c, err := read(t, text)
		require.NoError(t, err, text)
		assert.Equal(t, &loudConfig{Bytes: 4096, Names: []string{"a"}}, c.Probes()[0].Config, text)
	}
	// An empty list is not absent.
	c, err := read(t, "probes: {loud: {names: []}}")
	require.NoError(t, err)
	assert.Empty(t, c.Probes()[0].Config.(*loudConfig).Names)
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"65536": 65536, "64KiB": 65536, "'64 KiB'": 65536, "4MiB": 4 << 20, "4mib": 4 << 20, "1GiB": 1 << 30, "4096": 4096,
	} {
		c, err := read(t, "limits: {ring_buffer: "+text+"}")
		require.NoError(t, err, text)
		assert.Equal(t, want, c.Limits.RingBuffer, text)
	}
}

// badInput is a table of settings and of what the answer says.
func badInput() map[string][]string {
	names := "want one of loud, quiet"
	return map[string][]string{
		// Keys.
		"collection_intervall: 5s":     {"collection_intervall: there is no such key: want one of collection_interval, ", "probes"},
		"limits: {max_serie: 5}":       {"limits::max_serie: there is no such key: want one of max_series, "},
		"Scope: host":                  {"Scope: there is no such key"},
		"'': 1":                        {"there is no such key"},
		"limits: 5":                    {"limits: want a map of settings, got 5"},
		"limits: [1]":                  {"limits: want a map of settings, got a list"},
		"limits: {max_series: {a: 1}}": {"limits::max_series: want a whole number, got a map"},
		"{scope: hosst, limits: {x: 1}, histogram: 1}": {"limits::x: there is no such key", "histogram: want text, got 1"},
		// Durations.
		"collection_interval: 5":          {"collection_interval: 5 has no unit: want a number with a unit, such as"},
		"collection_interval: 0.5":        {"collection_interval: 0.5 has no unit"},
		"collection_interval: 5 potatoes": {`collection_interval: "5 potatoes" is not a duration`},
		"collection_interval: ''":         {`collection_interval: "" is not a duration`},
		"collection_interval: true":       {"collection_interval: want a number with a unit", "got true"},
		"collection_interval: -5s":        {"receivers::ebpf: collection_interval: -5s is out of range: want 100ms to 10m0s"},
		"collection_interval: 0s":         {"collection_interval: 0s is out of range"},
		"collection_interval: 11m":        {"collection_interval: 11m0s is out of range"},
		"collection_interval: 99999999h":  {"collection_interval: \"99999999h\" is not a duration"},
		"initial_delay: -1s":              {"initial_delay: -1s is out of range: want 0s to"},
		"event_linger: 1s":                {"event_linger: 1s is out of range: want 0s to 100ms"},
		"limits: {series_expiry: 10}":     {"limits::series_expiry: 10 has no unit"},
		"limits: {series_expiry: 10s}":    {"limits::series_expiry: 10s is less than collection_interval (15s): want 0 for never"},
		"limits: {series_expiry: -10m}":   {"limits::series_expiry: -10m0s is less"},
		// Sizes.
		"limits: {ring_buffer: 4 potatoes}": {`limits::ring_buffer: "4 potatoes" is not a size: want bytes, or`},
		"limits: {ring_buffer: -4MiB}":      {"limits::ring_buffer: ", "is not a size"},
		"limits: {ring_buffer: 1000}":       {"limits::ring_buffer: 1000 bytes: want a power of two from 4KiB to 1GiB"},
		"limits: {ring_buffer: 4MB}":        {"limits::ring_buffer: 4000000 bytes: want a power of two"},
		"limits: {ring_buffer: 0}":          {"limits::ring_buffer: 0 bytes: want a power of two"},
		"limits: {ring_buffer: 2GiB}":       {"limits::ring_buffer: 2147483648 bytes: want"},
		"limits: {ring_buffer: -1}":         {"limits::ring_buffer: -1 is out of range: want 0 to 18446744073709551615"},
		"limits: {ring_buffer: 1.5}":        {"limits::ring_buffer: want a whole number, got 1.5"},
		"limits: {ring_buffer: []}":         {"limits::ring_buffer: want a whole number, got a list"},
		// Numbers, words, switches.
		"limits: {max_series: 0}":             {"limits::max_series: 0 is out of range: want 1 to 100000"},
		"limits: {max_series: 1.5}":           {"limits::max_series: want a whole number, got 1.5"},
		"limits: {max_series: many}":          {`limits::max_series: want a whole number, got "many"`},
		"limits: {max_series: 1e30}":          {"limits::max_series: ", "is out of range: want -9223372036854775808 to 9223372036854775807"},
		"limits: {max_events_per_second: -1}": {"limits::max_events_per_second: -1 is out of range: want 0 to"},
		"limits: {max_processes: 1}":          {"limits::max_processes: 1 is out of range: want 256 to"},
		"histogram_scale: 4":                  {"histogram_scale: 4 is out of range: want 0 to 3"},
		"program_statistics: yes please":      {`program_statistics: want true or false, got "yes please"`},
		"program_statistics: 1":               {"program_statistics: want true or false, got 1"},
		"scope: pod":                          {`scope: "pod" is not known: want one of host, container, process`},
		"scope: 5":                            {"scope: want text, got 5: put it into quotes"},
		"scope: [host]":                       {"scope: want text, got a list"},
		"error_mode: ''":                      {`error_mode: "" is not known: want one of ignore, propagate`},
		"histogram: exponential_explicit":     {`histogram: "exponential_explicit" is not known: want one of exponential, explicit`},
		"root_path: host":                     {`root_path: "host" is not an absolute path`},
		"root_path: ''":                       {`root_path: "" is not an absolute path`},
		"{histogram_scale: -1, scope: x}":     {"histogram_scale: -1 is out of range", `scope: "x" is not known`},
		// Probes.
		"probes:":                                {"probes: empty: name at least one of loud, quiet, or leave the key out"},
		"probes: {}":                             {"probes: empty: name at least one of loud, quiet"},
		"probes: []":                             {"probes: want a map from probes to their settings, got a list"},
		"probes: loud":                           {`probes: want a map from probes to their settings, got "loud"`},
		"probes: {laud: {}}":                     {"probes::laud: there is no such probe: " + names},
		"probes: {laud: , loud: {bites: 1}}":     {"probes::laud: there is no such probe: " + names, "probes::loud::bites: there is no such key: want one of trace, bytes, ", "names, text, buffer, nested, metrics, events"},
		"probes: {loud: 5}":                      {"probes::loud: want a map of settings, got 5"},
		"probes: {loud: [trace]}":                {"probes::loud: want a map of settings, got a list"},
		"probes: {quiet: {x: 1}}":                {"probes::quiet::x: there is no such key: want one of metrics, events"},
		"probes: {loud: {bytes: 9000}}":          {"receivers::ebpf: probes::loud::bytes: 9000 is out of range, want 0 to 8192"},
		"probes: {loud: {bytes: 5000000000}}":    {"probes::loud::bytes: 5000000000 is out of range: want 0 to 4294967295"},
		"probes: {loud: {bytes: -1}}":            {"probes::loud::bytes: -1 is out of range"},
		"probes: {loud: {trace: maybe}}":         {`probes::loud::trace: want true or false, got "maybe"`},
		"probes: {loud: {names: 5}}":             {"probes::loud::names: want a list, got 5"},
		"probes: {loud: {names: [a, [b]]}}":      {"probes::loud::names[1]: want text, got a list"},
		"probes: {loud: {names: [a, 5]}}":        {"probes::loud::names[1]: want text, got 5"},
		"probes: {loud: {timeout: 5}}":           {"probes::loud::timeout: 5 has no unit"},
		"probes: {loud: {buffer: 5 x}}":          {`probes::loud::buffer: "5 x" is not a size`},
		"probes: {loud: {nested: {deap: true}}}": {"probes::loud::nested::deap: there is no such key: want one of deep"},
		// Metrics and events.
		"probes: {loud: {metrics: 5}}":                                 {"probes::loud::metrics: want a map from names to {enabled: true} or {enabled: false}, got 5"},
		"probes: {loud: {events: [loud.bang]}}":                        {"probes::loud::events: want a map", "got a list"},
		"probes: {loud: {metrics: {linux.lod: {enabled: true}}}}":      {"probes::loud::metrics::linux.lod: there is no such name: want one of linux.loud, linux.louder"},
		"probes: {loud: {metrics: {loud.bang: {enabled: true}}}}":      {"probes::loud::metrics::loud.bang: there is no such name"},
		"probes: {loud: {metrics: {linux.loud: false}}}":               {"probes::loud::metrics::linux.loud: want {enabled: true} or {enabled: false}"},
		"probes: {loud: {metrics: {linux.loud: {enabled: 1}}}}":        {"probes::loud::metrics::linux.loud: want {enabled"},
		"probes: {loud: {metrics: {linux.loud: }}}":                    {"probes::loud::metrics::linux.loud: want {enabled"},
		"probes: {loud: {events: {loud.bang: {enabled: true, x: 1}}}}": {"probes::loud::events::loud.bang: want {enabled"},
		"probes: {quiet: {events: {x: {enabled: true}}}}":              {"probes::quiet::events::x: there is no such name: want none, for the probe has none"},
		"probes: {loud: {metrics: {a: 1}, events: {b: 1}, bytes: a}}":  {"probes::loud::metrics::a: ", "probes::loud::events::b: ", "probes::loud::bytes: "},
	}
}

func TestBad(t *testing.T) {
	for text, want := range badInput() {
		t.Run(text, func(t *testing.T) {
			_, err := read(t, text)
			require.Error(t, err)
			for _, part := range want {
				assert.ErrorContains(t, err, part)
			}
			lines := strings.Split(err.Error(), "\n")
			assert.Len(t, slices.Compact(slices.Sorted(slices.Values(lines))), len(lines), "no line twice: %v", err)
			for _, goType := range []string{"map[string]", "[]interface", "uint32", "0x"} {
				assert.NotContains(t, err.Error(), goType)
			}
		})
	}
}

func TestNoTwoReceiversShareProbes(t *testing.T) {
	all := types()
	a, b := New(all), New(all)
	a.Probes()[0].Config.(*loudConfig).Bytes = 1
	assert.Equal(t, uint32(4096), b.Probes()[0].Config.(*loudConfig).Bytes)
}

// TestUnmarshalLeavesItsInputAlone because the Collector reads it again, for
// print-config and to compare configurations.
func TestUnmarshalLeavesItsInputAlone(t *testing.T) {
	values := map[string]any{"scope": "host", "probes": map[string]any{"loud": map[string]any{
		"bytes": 1, "metrics": map[string]any{"linux.loud": map[string]any{"enabled": false}},
	}}}
	conf := confmap.NewFromStringMap(values)
	before := conf.ToStringMap()
	require.NoError(t, New(types()).Unmarshal(conf))
	assert.Equal(t, before, conf.ToStringMap())
}

// TestEnvironment: a number from ${env:NAME} is text where text is wanted.
func TestEnvironment(t *testing.T) {
	resolver, err := confmap.NewResolver(confmap.ResolverSettings{
		URIs:              []string{"test:"},
		ProviderFactories: []confmap.ProviderFactory{provider("test", "{probes: {loud: {text: '${fake:x}', names: ['${fake:x}'], bytes: '${fake:x}'}}}"), provider("fake", "42")},
	})
	require.NoError(t, err)
	conf, err := resolver.Resolve(t.Context())
	require.NoError(t, err)
	c := New(types())
	require.NoError(t, conf.Unmarshal(c))
	got := c.Probes()[0].Config.(*loudConfig)
	assert.Equal(t, "42", got.Text)
	assert.Equal(t, []string{"42"}, got.Names)
	assert.Equal(t, uint32(42), got.Bytes)
}

// TestMarshal: what is printed reads back as the same.
func TestMarshal(t *testing.T) {
	c, err := read(t, `
scope: host
limits: {ring_buffer: 64KiB}
probes: {loud: {timeout: 3s, names: [x], metrics: {linux.loud: {enabled: false}}, events: {loud.bang: {enabled: true}}}, quiet: }
`)
	require.NoError(t, err)
	out := confmap.New()
	require.NoError(t, out.Marshal(map[string]any{"ebpf": c}))
	printed, err := out.Sub("ebpf")
	require.NoError(t, err)
	again := New(types())
	require.NoError(t, printed.Unmarshal(again), "%v", printed.ToStringMap())
	assert.Equal(t, c.Limits, again.Limits)
	assert.Equal(t, "host", again.Scope)
	require.Len(t, again.Probes(), 2)
	for i := range c.Probes() {
		assert.Equal(t, c.Probes()[i].Config, again.Probes()[i].Config)
		assert.True(t, maps.Equal(c.Probes()[i].Enabled, again.Probes()[i].Enabled))
	}
}

func TestEveryErrorIsReached(t *testing.T) {
	c := New(types())
	*c = Config{types: c.types, probes: c.probes, Limits: Limits{SeriesExpiry: -1}}
	var all interface{ Unwrap() []error }
	require.True(t, errors.As(c.Validate(), &all))
	assert.Len(t, all.Unwrap(), 9, "%v", c.Validate())
}

// FuzzUnmarshal: any YAML is read or refused, and what is read reads back.
func FuzzUnmarshal(f *testing.F) {
	for text := range badInput() {
		f.Add(text)
	}
	f.Add("{scope: host, probes: {loud: {names: a,b}, quiet: {metrics: {linux.quiet: {enabled: true}}}}}")
	f.Fuzz(func(t *testing.T, text string) {
		var values map[string]any
		if yaml.Unmarshal([]byte(text), &values) != nil {
			return
		}
		c := New(types())
		if err := confmap.NewFromStringMap(values).Unmarshal(c); err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an empty error")
			}
			return
		}
		if c.Validate() != nil {
			return
		}
		if len(c.Probes()) == 0 {
			t.Errorf("%q: valid, and no probe runs", text)
		}
		out := confmap.New()
		if err := out.Marshal(*c); err != nil {
			t.Fatal(err)
		}
		again := New(types())
		if err := out.Unmarshal(again); err != nil {
			t.Fatalf("%q: printed as %v, which is refused: %v", text, out.ToStringMap(), err)
		}
		assert.Equal(t, c.Limits, again.Limits)
	})
}
