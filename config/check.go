package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker compares what a user wrote with the struct that it is decoded into. The
// Collector's decoder refuses most of what is wrong, but names keys in a way that
// users do not write them, does not say what is allowed, reads a number without
// a unit as nanoseconds and cuts off what a number has behind its point.
type checker struct {
	errs []error
	// doubts are values that only the decoder can judge: a number where text is
	// wanted is right if it came from ${env:NAME}, whose text the decoder has.
	doubts []error
}

func (c *checker) refuse(path, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

// value checks one value for a field of type t. Null means the default.
func (c *checker) value(path string, value any, t reflect.Type) {
	switch {
	case value == nil, t == reflect.TypeOf(value) && t.Kind() != reflect.Struct:
		return // A Go program that builds a configuration may use Go's types.
	case t == reflect.TypeFor[time.Duration]():
		c.duration(path, value)
		return
	}
	if text, ok := value.(string); ok {
		if target, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler); ok {
			if err := target.UnmarshalText([]byte(text)); err != nil {
				c.refuse(path, "%v", err)
			}
			return
		}
	}
	switch t.Kind() {
	case reflect.Struct:
		c.object(path, value, t)
	case reflect.Slice:
		c.list(path, value, t)
	case reflect.Bool:
		if _, ok := value.(bool); !ok {
			c.refuse(path, "want true or false, got %s", describe(value))
		}
	case reflect.String:
		c.text(path, value)
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		c.whole(path, value, t)
	default:
		// A kind that no probe uses yet: the decoder has the word.
	}
}

func (c *checker) duration(path string, value any) {
	const want = "want a number with a unit, such as 500ms, 15s or 5m"
	switch value := value.(type) {
	case string:
		if _, err := time.ParseDuration(value); err != nil {
			c.refuse(path, "%q is not a duration: %s", value, want)
		}
	case int, int64, uint64, float64:
		// Zero is zero in any unit.
		if fmt.Sprint(value) != "0" {
			c.refuse(path, "%v has no unit: %s", value, want)
		}
	default:
		c.refuse(path, "%s, got %s", want, describe(value))
	}
}

func (c *checker) text(path string, value any) {
	switch value.(type) {
	case string:
	case map[string]any, []any:
		c.refuse(path, "want text, got %s", describe(value))
	default:
		c.doubts = append(c.doubts, fmt.Errorf("%s: want text, got %s: put it into quotes", path, describe(value)))
	}
}

func (c *checker) whole(path string, value any, t reflect.Type) {
	text := fmt.Sprint(value)
	switch v := reflect.ValueOf(value); {
	case v.CanInt(), v.CanUint():
	case v.CanFloat():
		if v.Float() != math.Trunc(v.Float()) {
			c.refuse(path, "want a whole number, got %v", value)
			return
		}
		text = strconv.FormatFloat(v.Float(), 'f', -1, 64)
	default:
		c.refuse(path, "want a whole number, got %s", describe(value))
		return
	}
	var err error
	if reflect.Zero(t).CanUint() {
		_, err = strconv.ParseUint(text, 10, t.Bits())
	} else {
		_, err = strconv.ParseInt(text, 10, t.Bits())
	}
	if err != nil {
		c.refuse(path, "%s is out of range: want %s", text, bounds(t))
	}
}

// bounds are those of an integer type.
func bounds(t reflect.Type) string {
	if reflect.Zero(t).CanUint() {
		return fmt.Sprintf("0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	}
	high := int64(math.MaxInt64) >> (64 - t.Bits())
	return fmt.Sprintf("%d to %d", -high-1, high)
}

func (c *checker) list(path string, value any, t reflect.Type) {
	if _, ok := value.(string); ok && t.Elem().Kind() == reflect.String {
		return // The decoder splits text at commas.
	}
	elements, ok := value.([]any)
	if !ok {
		c.refuse(path, "want a list, got %s", describe(value))
		return
	}
	for i, element := range elements {
		c.value(fmt.Sprintf("%s[%d]", path, i), element, t.Elem())
	}
}

// object checks a map of settings; further are keys that it may have besides.
func (c *checker) object(path string, value any, t reflect.Type, further ...string) {
	values, ok := value.(map[string]any)
	if !ok {
		c.refuse(path, "want a map of settings, got %s", describe(value))
		return
	}
	var known []string
	for i := range t.NumField() {
		field := t.Field(i)
		key := field.Tag.Get("mapstructure")
		if key == "" {
			continue
		}
		known = append(known, key)
		if v, set := values[key]; set {
			c.value(join(path, key), v, field.Type)
		}
	}
	known = append(known, further...)
	for _, key := range sortedKeys(values) {
		if !slices.Contains(known, key) {
			c.refuse(join(path, key), "there is no such key: want %s", oneOf(known, "none, for there are no settings here"))
		}
	}
}

// join is the path of a key, as users write it behind --set and as the Collector
// prints it.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "::" + key
}

// oneOf lists what is allowed; none says it if nothing is.
func oneOf(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	return "one of " + strings.Join(names, ", ")
}

// describe says what a value is, for people who have not heard of Go's types.
func describe(value any) string {
	switch value := value.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "a map"
	case []any:
		return "a list"
	case string:
		return strconv.Quote(value)
	}
	return fmt.Sprint(value)
}
