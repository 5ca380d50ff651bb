package otlp

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Attr is one attribute: a key and a string, integer or boolean value. It is
// comparable, and building one does not allocate.
type Attr struct {
	Key  string
	kind pcommon.ValueType
	text string
	num  int64
}

// String is an attribute with a string value.
func String(key, value string) Attr {
	return Attr{Key: key, kind: pcommon.ValueTypeStr, text: value}
}

// Int is an attribute with an integer value.
func Int(key string, value int64) Attr {
	return Attr{Key: key, kind: pcommon.ValueTypeInt, num: value}
}

// Bool is an attribute with a boolean value.
func Bool(key string, value bool) Attr {
	a := Attr{Key: key, kind: pcommon.ValueTypeBool}
	if value {
		a.num = 1
	}
	return a
}

// put writes the attribute into m under its key; m must not hold the key yet.
func (a Attr) put(m pcommon.Map) {
	switch a.kind {
	case pcommon.ValueTypeInt:
		m.PutInt(a.Key, a.num)
	case pcommon.ValueTypeBool:
		m.PutBool(a.Key, a.num != 0)
	default:
		m.PutStr(a.Key, a.text)
	}
}

// Resource is what a series or a record is about: the host, a container, a
// process. It is immutable, and its address is its identity: whoever makes
// resources (internal/enrich) hands out one pointer for each.
type Resource struct {
	attrs []Attr
}

// NewResource returns a resource with the given attributes, in that order. The
// resource without attributes is the host.
func NewResource(attrs ...Attr) *Resource {
	return &Resource{attrs: attrs}
}

// Attributes returns the resource's attributes; they must not be changed.
func (r *Resource) Attributes() []Attr {
	return r.attrs
}

// Fill writes the resource's attributes into m, which must be empty.
func (r *Resource) Fill(m pcommon.Map) {
	fill(m, r.attrs)
}

// fill writes attributes, whose keys differ, into an empty map.
func fill(m pcommon.Map, attrs []Attr) {
	m.EnsureCapacity(len(attrs))
	for _, a := range attrs {
		a.put(m)
	}
}
