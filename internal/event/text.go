package event

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Interner keeps the strings that records repeat (paths, names), so that each is
// allocated once. It is not safe for concurrent use. The zero value is ready.
type Interner struct {
	strings map[string]string
	path    []byte
}

// maxInterned bounds the strings kept; at it, all are forgotten, which is
// cheaper than knowing which were used last and as good when they repeat.
const maxInterned = 4096

// String returns the bytes as a string. Bytes that are not UTF-8, which OTLP does
// not carry, become U+FFFD.
func (in *Interner) String(text []byte) string {
	if s, ok := in.strings[string(text)]; ok {
		return s
	}
	if in.strings == nil || len(in.strings) >= maxInterned {
		in.strings = make(map[string]string, maxInterned/8)
	}
	s := Valid(string(text))
	in.strings[string(text)] = s
	return s
}

// CString is String up to the first NUL.
func (in *Interner) CString(text []byte) string {
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	return in.String(text)
}

// Path returns the path whose components bpf/include/path.h wrote leaf first, each
// with its NUL. The root is "/". A truncated path misses its beginning, so it
// does not start with a slash: nothing that looks for an absolute path takes it
// for one.
func (in *Interner) Path(components []byte, truncated bool) string {
	in.path = in.path[:0]
	for len(components) > 0 {
		components = bytes.TrimSuffix(components, []byte{0})
		start := bytes.LastIndexByte(components, 0) + 1
		if len(in.path) > 0 || !truncated {
			in.path = append(in.path, '/')
		}
		in.path = append(in.path, components[start:]...)
		components = components[:start]
	}
	if len(in.path) == 0 && !truncated {
		return "/"
	}
	return in.String(in.path)
}

// Valid returns s with what is not UTF-8 replaced by U+FFFD.
func Valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Base is the last component of a path.
func Base(path string) string {
	return path[strings.LastIndexByte(path, '/')+1:]
}
