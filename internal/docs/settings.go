package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"time"

	"otelcol-ebpf/internal/probe"
)

// setting is one key of a probe's configuration.
type setting struct {
	Key         string
	Description string
	Type        reflect.Type
	Default     reflect.Value
	// Min and Max are the bounds of a whole number; nil where its type is the bound.
	Min, Max *int64
}

// settingsOf lists the keys of a probe's Config in the order in which it declares
// them, described by its comments.
func settingsOf(root string, t probe.Type) ([]setting, error) {
	defaults := reflect.ValueOf(t.NewConfig()).Elem()
	comments, err := fieldComments(filepath.Join(root, "bpf", Folder(t.Metadata.Type)), defaults.Type().Name())
	if err != nil {
		return nil, err
	}
	var settings []setting
	for i := range defaults.NumField() {
		field := defaults.Type().Field(i)
		key := field.Tag.Get("mapstructure")
		if key == "" {
			return nil, fmt.Errorf("field %s has no mapstructure tag", field.Name)
		}
		comment := strings.Join(strings.Fields(comments[field.Name]), " ")
		text, found := strings.CutPrefix(comment, field.Name+" ")
		if !found {
			return nil, fmt.Errorf("field %s has no comment that begins with its name", field.Name)
		}
		s := setting{Key: key, Description: "`" + key + "` " + text, Type: field.Type, Default: defaults.Field(i)}
		s.Min, s.Max = bounds(t, i)
		settings = append(settings, s)
	}
	return settings, nil
}

// fieldComments are the doc comments of a struct's fields, by the fields' names.
func fieldComments(folder, structName string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	comments := map[string]string{}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(tree, func(node ast.Node) bool {
			spec, ok := node.(*ast.TypeSpec)
			if !ok || spec.Name.Name != structName {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					for _, name := range field.Names {
						comments[name.Name] = field.Doc.Text()
					}
				}
			}
			return false
		})
	}
	return comments, nil
}

// bounds are the least and the greatest value of a whole number that Validate lets
// through while all other settings have their defaults, found by asking it.
func bounds(t probe.Type, field int) (low, high *int64) {
	kind := reflect.ValueOf(t.NewConfig()).Elem().Field(field)
	if !kind.CanInt() && !kind.CanUint() || kind.Type() == reflect.TypeFor[time.Duration]() {
		return nil, nil
	}
	accepts := func(n int64) bool {
		c := t.NewConfig()
		target := reflect.ValueOf(c).Elem().Field(field)
		if target.CanUint() {
			target.SetUint(uint64(n))
		} else {
			target.SetInt(n)
		}
		return c.Validate() == nil
	}
	lowest, start, highest := limitsOf(kind)
	if !accepts(start) {
		return nil, nil
	}
	if !accepts(lowest) || lowest == 0 {
		least := start - int64(sort.Search(int(start-lowest), func(i int) bool { return !accepts(start - int64(i) - 1) }))
		low = &least
	}
	if !accepts(highest) {
		greatest := start + int64(sort.Search(int(highest-start), func(i int) bool { return !accepts(start + int64(i) + 1) }))
		high = &greatest
	}
	return low, high
}

// limitsOf are the least and the greatest value of an integer's type, as far as
// int64 goes, and its value. Signed ones are halved, so that differences fit.
func limitsOf(v reflect.Value) (lowest, value, highest int64) {
	if v.CanUint() {
		return 0, int64(v.Uint()), math.MaxInt64 >> max(0, 63-v.Type().Bits())
	}
	highest = math.MaxInt64 >> (65 - v.Type().Bits())
	return -highest, v.Int(), highest
}

// defaultText is the default as YAML has it.
func (s *setting) defaultText() string {
	switch {
	case s.Type == reflect.TypeFor[time.Duration]():
		return s.Default.Interface().(time.Duration).String()
	case s.Type.Kind() == reflect.Slice:
		return strings.ReplaceAll(fmt.Sprint(s.Default.Interface()), " ", ", ")
	case s.Type.Kind() == reflect.String && s.Default.Len() == 0:
		return `""`
	}
	return fmt.Sprint(s.Default.Interface())
}

// typeText is what the setting takes, for people.
func (s *setting) typeText() string {
	switch {
	case s.Type == reflect.TypeFor[time.Duration]():
		return "duration"
	case s.Min != nil && s.Max != nil:
		return fmt.Sprintf("%d to %d", *s.Min, *s.Max)
	case s.Type.Kind() == reflect.Slice:
		return "list"
	case s.Type.Kind() == reflect.Bool:
		return "true or false"
	case s.Type.Kind() == reflect.String:
		return "text"
	}
	return "whole number"
}
