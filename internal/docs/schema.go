package docs

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// schema is the part of JSON Schema that is needed here.
type schema struct {
	Type        any               `yaml:"type,omitempty"`
	Ref         string            `yaml:"$ref,omitempty"`
	Description string            `yaml:"description,omitempty"`
	Default     any               `yaml:"default,omitempty"`
	Minimum     *int64            `yaml:"minimum,omitempty"`
	Maximum     *int64            `yaml:"maximum,omitempty"`
	Items       *schema           `yaml:"items,omitempty"`
	Closed      *bool             `yaml:"additionalProperties,omitempty"`
	Properties  map[string]schema `yaml:"properties,omitempty"`
}

// probesSchema is the list of properties of `probes:` in config.schema.yaml,
// indented as it stands there.
func probesSchema(types []described) (string, error) {
	probes := map[string]schema{}
	for i := range types {
		probe, err := types[i].schema()
		if err != nil {
			return "", fmt.Errorf("schema of %s: %w", types[i].Type, err)
		}
		probes[types[i].Type] = probe
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(probes); err != nil {
		return "", err
	}
	const indent = "      "
	return indent + strings.ReplaceAll(strings.TrimSuffix(text.String(), "\n"), "\n", "\n"+indent) + "\n", nil
}

func object(description string, properties map[string]schema) schema {
	closed := false
	// Null is an object with defaults only.
	return schema{Type: []string{"object", "null"}, Description: description, Closed: &closed, Properties: properties}
}

func (d *described) schema() (schema, error) {
	properties := map[string]schema{}
	for _, s := range d.settings {
		property, err := s.schema()
		if err != nil {
			return schema{}, fmt.Errorf("%s: %w", s.Key, err)
		}
		properties[s.Key] = property
	}
	metrics, events := map[string]schema{}, map[string]schema{}
	for name, metric := range d.Metrics {
		metrics[name] = enabledSchema(metric.Description, metric.Enabled)
	}
	for name, event := range d.Events {
		events[name] = enabledSchema(event.Description, event.Enabled)
	}
	properties["metrics"] = object("Which metrics the probe emits.", metrics)
	properties["events"] = object("Which events the probe emits.", events)
	return object(d.Description, properties), nil
}

func enabledSchema(description string, enabled bool) schema {
	return schema{Ref: "#/$defs/enabled", Description: description, Default: map[string]bool{"enabled": enabled}}
}

func (s *setting) schema() (schema, error) {
	property := schema{Description: s.Description, Minimum: s.Min, Maximum: s.Max}
	switch s.Type.Kind() {
	case reflect.Bool:
		property.Type, property.Default = "boolean", s.Default.Bool()
	case reflect.String:
		property.Type, property.Default = "string", s.Default.String()
	case reflect.Int64:
		if s.Type == reflect.TypeFor[time.Duration]() {
			property.Ref, property.Default = "#/$defs/duration", s.defaultText()
			break
		}
		fallthrough
	case reflect.Int, reflect.Int32, reflect.Uint, reflect.Uint32, reflect.Uint64:
		property.Type, property.Default = "integer", s.Default.Interface()
	case reflect.Slice:
		if s.Type.Elem().Kind() != reflect.String {
			return schema{}, fmt.Errorf("a list of %s: teach internal/docs about it", s.Type.Elem())
		}
		property.Type, property.Items = "array", &schema{Type: "string"}
		property.Default = append([]string{}, s.Default.Interface().([]string)...)
	default:
		return schema{}, fmt.Errorf("type %s: teach internal/docs about it", s.Type)
	}
	return property, nil
}
