// Package metadata is the declaration of what a probe emits and needs: the
// parsed form of the metadata.yaml that stands beside each probe.
//
// The file speaks mdatagen's vocabulary (status, attributes, metrics, events)
// and adds three words: histogram, default and requires. It is the single
// source for the builders in internal/otlp, for the generated documentation
// and for the tests that refuse an undeclared metric, attribute or event.
package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Metadata describes one probe. It is read-only once parsed.
type Metadata struct {
	// Type is the probe's id: its key under `probes:`.
	Type        string `yaml:"type"`
	DisplayName string `yaml:"display_name"`
	Description string `yaml:"description"`
	// Default tells that the probe runs when `probes:` is omitted.
	Default    bool                 `yaml:"default"`
	Status     Status               `yaml:"status"`
	Requires   Requires             `yaml:"requires"`
	Attributes map[string]Attribute `yaml:"attributes"`
	Metrics    map[string]Metric    `yaml:"metrics"`
	Events     map[string]Event     `yaml:"events"`
}

// Status holds the stability per signal, as mdatagen writes it:
// stability level to the signals that have it.
type Status struct {
	Stability map[string][]string `yaml:"stability"`
}

// Requires says what the kernel must offer, and why it is asked for.
type Requires struct {
	// Kernel is the oldest release on which the probe does its whole job.
	Kernel       string       `yaml:"kernel"`
	Capabilities []Capability `yaml:"capabilities"`
	Hooks        []Hook       `yaml:"hooks"`
}

// Capability is a Linux capability and the reason it is needed.
type Capability struct {
	Name string `yaml:"name"`
	Why  string `yaml:"why"`
}

// Hook is a place in the kernel that a probe attaches to.
type Hook struct {
	// Name is the kind of program and its target: "tp_btf/sched_switch".
	Name string `yaml:"name"`
	// Kernel is the oldest release that has the hook; empty means the floor.
	Kernel string `yaml:"kernel"`
	// Optional hooks add to the probe; without them it still runs.
	Optional bool   `yaml:"optional"`
	Why      string `yaml:"why"`
}

// Attribute describes one attribute key.
type Attribute struct {
	Description string `yaml:"description"`
	// Type is string, int, bool, double or slice (of strings).
	Type string   `yaml:"type"`
	Enum []string `yaml:"enum"`
	// OptIn tells that the attribute is absent unless a setting asks for it.
	OptIn bool `yaml:"opt_in"`
}

// Metric describes one metric. Exactly one of Sum, Gauge and Histogram is set.
type Metric struct {
	// ScopeNames are the names that the semantic conventions give to the very same
	// thing for a kind of resource: by the receiver's scope (host, container,
	// process), the name that the metric leaves under.
	ScopeNames  map[string]string `yaml:"scope_names"`
	Enabled     bool              `yaml:"enabled"`
	Description string            `yaml:"description"`
	Unit        string            `yaml:"unit"`
	Stability   Stability         `yaml:"stability"`
	Sum         *Sum              `yaml:"sum"`
	Gauge       *Gauge            `yaml:"gauge"`
	Histogram   *Histogram        `yaml:"histogram"`
	Attributes  []string          `yaml:"attributes"`
}

// Stability is mdatagen's per-metric stability.
type Stability struct {
	Level string `yaml:"level"`
}

// Sum is a sum's kind. Only cumulative sums exist here.
type Sum struct {
	ValueType              string `yaml:"value_type"`
	Monotonic              bool   `yaml:"monotonic"`
	AggregationTemporality string `yaml:"aggregation_temporality"`
}

// Gauge is a gauge's kind.
type Gauge struct {
	ValueType string `yaml:"value_type"`
}

// Histogram is a histogram's kind; the receiver's `histogram:` setting decides
// whether it leaves as an exponential or an explicit one.
type Histogram struct {
	ValueType string `yaml:"value_type"`
}

// Event describes one kind of log record.
type Event struct {
	Enabled     bool      `yaml:"enabled"`
	Description string    `yaml:"description"`
	Severity    string    `yaml:"severity"`
	Stability   Stability `yaml:"stability"`
	Attributes  []string  `yaml:"attributes"`
}

// Parse reads a metadata.yaml. It refuses unknown keys, attributes that are
// used but not declared or declared but not used, metrics without exactly one kind,
// and hooks and capabilities without a reason; the error names the place.
func Parse(text []byte) (Metadata, error) {
	var m Metadata
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&m); err != nil {
		return Metadata{}, fmt.Errorf("metadata.yaml: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Metadata{}, errors.New("metadata.yaml: more than one document")
	}
	if err := m.check(); err != nil {
		return Metadata{}, fmt.Errorf("metadata.yaml of %q: %w", m.Type, err)
	}
	return m, nil
}

// MustParse is Parse for text that is embedded in the binary and therefore
// was tested; it panics on an error.
func MustParse(text []byte) Metadata {
	m, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return m
}

var typePattern = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (m *Metadata) check() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !typePattern.MatchString(m.Type) {
		add("type: want lower-case letters, digits and underscores, got %q", m.Type)
	}
	if m.Description == "" {
		add("description: missing")
	}
	if m.Requires.Kernel == "" || len(m.Requires.Hooks) == 0 {
		add("requires: kernel and hooks are both needed")
	}
	if len(m.Metrics)+len(m.Events) == 0 {
		add("neither metrics nor events")
	}
	for _, h := range m.Requires.Hooks {
		if h.Name == "" || h.Why == "" {
			add("requires.hooks: name and why are both needed, got %+v", h)
		}
	}
	for _, c := range m.Requires.Capabilities {
		if c.Name == "" || c.Why == "" {
			add("requires.capabilities: name and why are both needed, got %+v", c)
		}
	}
	used := map[string]bool{}
	use := func(place string, attributes []string) {
		for i, a := range attributes {
			used[a] = true
			if _, ok := m.Attributes[a]; !ok {
				add("%s: attribute %q is not declared", place, a)
			}
			if slices.Contains(attributes[:i], a) {
				add("%s: attribute %q is listed twice", place, a)
			}
		}
	}
	for _, name := range sortedKeys(m.Metrics) {
		metric, place := m.Metrics[name], "metrics."+name
		use(place, metric.Attributes)
		metric.check(place, add)
	}
	for _, name := range sortedKeys(m.Events) {
		event, place := m.Events[name], "events."+name
		use(place, event.Attributes)
		event.check(place, add)
		// Both are switched by name, in one table.
		if _, ok := m.Metrics[name]; ok {
			add("%s: a metric has this name, too", place)
		}
	}
	for _, name := range sortedKeys(m.Attributes) {
		a, place := m.Attributes[name], "attributes."+name
		if !used[name] {
			add("%s: declared but not used", place)
		}
		if !slices.Contains([]string{"string", "int", "bool", "double", "slice"}, a.Type) {
			add("%s: type %q, want string, int, bool, double or slice", place, a.Type)
		}
	}
	return errors.Join(errs...)
}

func (e *Event) check(place string, add func(string, ...any)) {
	if e.Description == "" {
		add("%s: description missing", place)
	}
	if !slices.Contains(Severities(), e.Severity) {
		add("%s: severity %q, want one of %s", place, e.Severity, strings.Join(Severities(), ", "))
	}
}

func (metric *Metric) check(place string, add func(string, ...any)) {
	var kinds []string // the value types of those that are set
	if metric.Sum != nil {
		kinds = append(kinds, metric.Sum.ValueType)
		if metric.Sum.AggregationTemporality != "cumulative" {
			add("%s: aggregation_temporality %q, want cumulative", place, metric.Sum.AggregationTemporality)
		}
	}
	if metric.Gauge != nil {
		kinds = append(kinds, metric.Gauge.ValueType)
	}
	if metric.Histogram != nil {
		kinds = append(kinds, metric.Histogram.ValueType)
	}
	if len(kinds) != 1 {
		add("%s: want exactly one of sum, gauge and histogram, got %d", place, len(kinds))
	}
	for _, valueType := range kinds {
		if valueType != "int" && valueType != "double" {
			add("%s: value_type %q, want int or double", place, valueType)
		}
	}
	if metric.Description == "" || metric.Unit == "" {
		add("%s: description and unit are both needed", place)
	}
}

// sortedKeys makes the order of errors the same each time.
func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

// Severities are the names an event's severity may have, from the least to the
// most severe; they are the short names of the OpenTelemetry log data model.
func Severities() []string {
	return []string{"trace", "debug", "info", "warn", "error", "fatal"}
}
