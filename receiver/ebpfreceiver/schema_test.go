package ebpfreceiver_test

import (
	"encoding"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"

	"otelcol-ebpf/bpf"
	"otelcol-ebpf/config"
	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/receiver/ebpfreceiver"
)

// schema is the part of JSON Schema that config.schema.yaml uses.
type schema struct {
	Schema        string            `yaml:"$schema"`
	Title         string            `yaml:"title"`
	Type          any               `yaml:"type"`
	Ref           string            `yaml:"$ref"`
	Description   string            `yaml:"description"`
	Default       any               `yaml:"default"`
	Const         any               `yaml:"const"`
	Enum          []string          `yaml:"enum"`
	Pattern       string            `yaml:"pattern"`
	Minimum       *int64            `yaml:"minimum"`
	Maximum       *int64            `yaml:"maximum"`
	Items         *schema           `yaml:"items"`
	AnyOf         []schema          `yaml:"anyOf"`
	Required      []string          `yaml:"required"`
	MinProperties int               `yaml:"minProperties"`
	Additional    *bool             `yaml:"additionalProperties"`
	Properties    map[string]schema `yaml:"properties"`
	Defs          map[string]schema `yaml:"$defs"`
}

func readSchema(t *testing.T) schema {
	t.Helper()
	file, err := os.Open("../../config/config.schema.yaml")
	require.NoError(t, err)
	defer file.Close()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true) // A misspelt keyword would be ignored by validators.
	var s schema
	require.NoError(t, decoder.Decode(&s))
	return s
}

// TestSchema holds config.schema.yaml against the structs that the configuration
// is decoded into: keys, types, defaults, and what is accepted.
func TestSchema(t *testing.T) {
	if os.Getenv("OTELCOL_EBPF_KERNEL_MATRIX") == "1" {
		t.Skip("a guest does not have the repository's other folders")
	}
	root := readSchema(t)
	assert.Equal(t, "https://json-schema.org/draft/2020-12/schema", root.Schema)
	c := ebpfreceiver.NewFactory().CreateDefaultConfig().(*config.Config)
	probes := root.Properties["probes"]
	delete(root.Properties, "probes")
	checkObject(t, "", root, reflect.ValueOf(c).Elem())

	require.Equal(t, 1, probes.MinProperties)
	require.False(t, *probes.Additional)
	require.Len(t, probes.Properties, len(bpf.All()))
	for _, probe := range bpf.All() {
		s, ok := probes.Properties[probe.Metadata.Type]
		require.True(t, ok, probe.Metadata.Type)
		path := "probes::" + probe.Metadata.Type
		checkSwitches(t, path+"::metrics", s.Properties["metrics"], probe.Metadata.Metrics, func(m metadata.Metric) bool { return m.Enabled })
		checkSwitches(t, path+"::events", s.Properties["events"], probe.Metadata.Events, func(e metadata.Event) bool { return e.Enabled })
		delete(s.Properties, "metrics")
		delete(s.Properties, "events")
		checkObject(t, path, s, reflect.ValueOf(probe.NewConfig()).Elem())
	}
	checkBounds(t, "", root)
	checkBounds(t, "probes::", probes)
	checkPatterns(t, root.Defs)
}

func checkObject(t *testing.T, path string, s schema, v reflect.Value) {
	t.Helper()
	assert.Equal(t, []any{"object", "null"}, s.Type, path)
	if assert.NotNil(t, s.Additional, path) {
		assert.False(t, *s.Additional, "%s: unknown keys are refused", path)
	}
	assert.NotEmpty(t, s.Description, path)
	var keys []string
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("mapstructure")
		if !v.Type().Field(i).IsExported() {
			continue
		}
		keys = append(keys, key)
		property, ok := s.Properties[key]
		if assert.True(t, ok, "%s::%s is not in the schema", path, key) {
			checkProperty(t, path+"::"+key, property, v.Field(i))
		}
	}
	for key := range s.Properties {
		assert.Contains(t, keys, key, "%s: in the schema only", path)
	}
}

func checkProperty(t *testing.T, path string, s schema, v reflect.Value) {
	t.Helper()
	assert.NotEmpty(t, s.Description, path)
	switch value := v.Interface().(type) {
	case time.Duration:
		assert.Equal(t, "#/$defs/duration", s.Ref, path)
		got, err := time.ParseDuration(fmt.Sprint(s.Default))
		assert.NoError(t, err, path)
		assert.Equal(t, value, got, path)
		return
	case encoding.TextMarshaler:
		assert.Equal(t, "#/$defs/size", s.Ref, path)
		var size config.Size
		assert.NoError(t, size.UnmarshalText([]byte(fmt.Sprint(s.Default))), path)
		assert.Equal(t, value, size, path)
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		assert.Equal(t, "boolean", s.Type, path)
	case reflect.String:
		assert.Equal(t, "string", s.Type, path)
	case reflect.Int, reflect.Uint32:
		assert.Equal(t, "integer", s.Type, path)
	case reflect.Slice:
		assert.Equal(t, "array", s.Type, path)
		assert.Equal(t, &schema{Type: "string"}, s.Items, path)
		assert.Equal(t, v.Len(), len(s.Default.([]any)), path)
		return
	case reflect.Struct:
		checkObject(t, path, s, v)
		return
	default:
		t.Errorf("%s: a %s, which this test does not know", path, v.Type())
	}
	assert.EqualValues(t, v.Interface(), s.Default, path)
}

func checkSwitches[T any](t *testing.T, path string, s schema, declared map[string]T, enabled func(T) bool) {
	t.Helper()
	assert.Len(t, s.Properties, len(declared), path)
	for name, d := range declared {
		property := s.Properties[name]
		assert.Equal(t, "#/$defs/enabled", property.Ref, "%s::%s", path, name)
		assert.Equal(t, map[string]any{"enabled": enabled(d)}, property.Default, "%s::%s", path, name)
	}
}

// accepts asks the receiver itself.
func accepts(path string, value any) bool {
	c := ebpfreceiver.NewFactory().CreateDefaultConfig()
	conf := confmap.NewFromStringMap(map[string]any{path: value})
	return conf.Unmarshal(c) == nil && confmap.Validate(c) == nil
}

// checkBounds asks whether what the schema allows at the edges is accepted and
// what lies beyond them is not.
func checkBounds(t *testing.T, path string, s schema) {
	t.Helper()
	for key, property := range s.Properties {
		at := path + key
		if property.Minimum != nil {
			assert.True(t, accepts(at, int(*property.Minimum)), "%s: %d", at, *property.Minimum)
			assert.False(t, accepts(at, int(*property.Minimum)-1), "%s: %d", at, *property.Minimum-1)
		}
		if property.Maximum != nil {
			assert.True(t, accepts(at, int(*property.Maximum)), "%s: %d", at, *property.Maximum)
			assert.False(t, accepts(at, int(*property.Maximum)+1), "%s: %d", at, *property.Maximum+1)
		}
		for _, word := range property.Enum {
			assert.True(t, accepts(at, word), "%s: %s", at, word)
			assert.False(t, accepts(at, word+"x"), "%s: %sx", at, word)
		}
		if property.Default != nil {
			assert.True(t, accepts(at, property.Default), "%s: the default %v", at, property.Default)
		}
		checkBounds(t, at+"::", property)
	}
}

// checkPatterns holds the patterns of durations and sizes against their parsers.
func checkPatterns(t *testing.T, defs map[string]schema) {
	t.Helper()
	matches := func(name, text string) bool {
		i := slices.IndexFunc(defs[name].AnyOf, func(s schema) bool { return s.Pattern != "" })
		return regexp.MustCompile(defs[name].AnyOf[i].Pattern).MatchString(text)
	}
	for text, want := range map[string]bool{
		"15s": true, "1h30m": true, "0.5s": true, "100ms": true, "5": false, "5 s": false, "": false, "-5s": false, "five": false,
	} {
		assert.Equal(t, want, matches("duration", text), text)
		if want {
			_, err := time.ParseDuration(text)
			assert.NoError(t, err)
		}
	}
	for text, want := range map[string]bool{
		"4MiB": true, "64KiB": true, "64 kib": true, "1MB": true, "65536": true, "4 potatoes": false, "": false, "-4MiB": false,
	} {
		assert.Equal(t, want, matches("size", text), text)
		var size config.Size
		assert.Equal(t, want, size.UnmarshalText([]byte(text)) == nil, text)
	}
}
