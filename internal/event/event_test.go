package event

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fixed is what bpf2go makes of a struct that begins with an event_header.
type fixed struct {
	Header    header
	NameSize  uint32
	Flags     uint32
	OtherSize uint64
}

// record returns a record of size bytes, aligned as the ring reader's are, whose
// header claims that size.
func record(size int) []byte {
	words := make([]uint64, size/8+1)
	r := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
	if size >= 24 {
		binary.NativeEndian.PutUint32(r[20:], uint32(size))
	}
	return r
}

func TestKind(t *testing.T) {
	r := record(24)
	binary.NativeEndian.PutUint32(r[16:], 7)
	kind, err := Kind(r)
	require.NoError(t, err)
	assert.Equal(t, uint32(7), kind)
	for _, short := range [][]byte{nil, {}, r[:1], r[:23]} {
		_, err := Kind(short)
		assert.ErrorIs(t, err, ErrMalformed)
	}
}

func TestAs(t *testing.T) {
	r := record(48)
	binary.NativeEndian.PutUint64(r, 42)
	binary.NativeEndian.PutUint64(r[8:], 7)
	binary.NativeEndian.PutUint32(r[24:], 8)
	copy(r[40:], "tail1234")
	v, tail, err := As[fixed](r)
	require.NoError(t, err)
	assert.Equal(t, header{time: 42, cgroupID: 7, size: 48}, v.Header)
	assert.Equal(t, uint32(8), v.NameSize)
	assert.Equal(t, "tail1234", string(tail))
	// It is a view.
	binary.NativeEndian.PutUint32(r[24:], 9)
	assert.Equal(t, uint32(9), v.NameSize)

	_, tail, err = As[fixed](record(40))
	require.NoError(t, err)
	assert.Empty(t, tail)
}

func TestAsRefuses(t *testing.T) {
	claims := func(size int, claimed uint32) []byte {
		r := record(size)
		binary.NativeEndian.PutUint32(r[20:], claimed)
		return r
	}
	misaligned := record(56)[4:44]
	binary.NativeEndian.PutUint32(misaligned[20:], 40)
	for name, r := range map[string][]byte{
		"nothing":            nil,
		"empty":              {},
		"less than a header": record(23),
		"a header only":      record(24),
		"one byte short":     record(39),
		"claims more":        claims(40, 41),
		"claims less":        claims(48, 40),
		"claims nothing":     claims(40, 0),
		"claims a lot":       claims(40, 1<<32-1),
		"misaligned":         misaligned,
	} {
		_, _, err := As[fixed](r)
		assert.ErrorIs(t, err, ErrMalformed, name)
	}
	// A struct without room for a header does not make it read beyond the record.
	_, _, err := As[uint64](record(8))
	assert.ErrorIs(t, err, ErrMalformed)
	_, _, err = As[struct{}](nil)
	assert.ErrorIs(t, err, ErrMalformed)
}

func TestTexts(t *testing.T) {
	texts := NewTexts([]byte("abcdef"))
	assert.Equal(t, "ab", string(texts.Next(2)))
	assert.Empty(t, texts.Next(0))
	assert.ErrorIs(t, texts.End(), ErrMalformed, "bytes left over")
	got := texts.Next(4)
	assert.Equal(t, "cdef", string(got))
	assert.NoError(t, texts.End())

	texts = NewTexts([]byte("abc"))
	first := texts.Next(1)
	assert.Equal(t, 1, cap(first), "an append does not overwrite the next text")
	assert.Nil(t, texts.Next(3), "longer than what is left")
	assert.Nil(t, texts.Next(1), "nothing after that")
	assert.ErrorIs(t, texts.End(), ErrMalformed)
	assert.ErrorContains(t, texts.End(), "text of 3 bytes, 2 left")

	assert.Nil(t, NewTexts(nil).Next(1<<32-1))
	assert.NoError(t, (&Texts{}).End())
}

func TestPath(t *testing.T) {
	for _, c := range []struct {
		components string
		truncated  bool
		want       string
	}{
		{"", false, "/"},
		{"", true, ""},
		{"ls\x00bin\x00usr\x00", false, "/usr/bin/ls"},
		{"ls\x00bin\x00usr\x00", true, "usr/bin/ls"},
		{"ls\x00", false, "/ls"},
		{"ls\x00", true, "ls"},
		{"ls\x00bin", false, "/bin/ls"}, // the last NUL is cut off
		{"a b\x00ü\x00", false, "/ü/a b"},
		{"\xff\xfe\x00tmp\x00", false, "/tmp/\uFFFD"},
		{"memfd:x (deleted)\x00", false, "/memfd:x (deleted)"},
		{strings.Repeat("d\x00", 300), false, strings.Repeat("/d", 300)},
	} {
		var in Interner
		assert.Equal(t, c.want, in.Path([]byte(c.components), c.truncated), "%q", c.components)
	}
}

func TestStrings(t *testing.T) {
	var in Interner
	assert.Equal(t, "", in.String(nil))
	assert.Equal(t, "bash", in.String([]byte("bash")))
	assert.Equal(t, "bash", in.CString([]byte("bash\x00rest")))
	assert.Equal(t, "sixteen bytes...", in.CString([]byte("sixteen bytes...")))
	assert.Equal(t, "", in.CString([]byte{0, 'x'}))
	assert.Equal(t, "a\uFFFDb", in.String([]byte("a\xc3b")))
	// A character cut in two, as a 15-byte comm may end.
	assert.Equal(t, "aaaaaaaaaaaaaa\uFFFD", in.CString([]byte("aaaaaaaaaaaaaa\xc3\x00")))
	// The string does not alias the record.
	text := []byte("before")
	s := in.String(text)
	copy(text, "after!")
	assert.Equal(t, "before", s)
	assert.Equal(t, "before", in.String([]byte("before")))
}

func TestBase(t *testing.T) {
	for path, want := range map[string]string{"/usr/bin/ls": "ls", "ls": "ls", "/": "", "": "", "a/": ""} {
		assert.Equal(t, want, Base(path), path)
	}
}

func TestInternerIsBounded(t *testing.T) {
	var in Interner
	for i := range 3*maxInterned + 1 {
		in.String(fmt.Append(nil, i))
		require.LessOrEqual(t, len(in.strings), maxInterned)
	}
	assert.NotEmpty(t, in.strings)
}

func TestKnownStringsAreNotAllocated(t *testing.T) {
	var in Interner
	name, path := []byte("bash\x00\x00"), []byte("bash\x00bin\x00usr\x00")
	broken := []byte("a\xffb")
	allocations := testing.AllocsPerRun(100, func() {
		in.CString(name)
		in.Path(path, false)
		in.Path(path, true)
		in.String(broken)
	})
	assert.Zero(t, allocations)
	assert.Same(t, unsafe.StringData(in.CString(name)), unsafe.StringData(in.CString(name)))
}

func FuzzAs(f *testing.F) {
	f.Add(record(40), uint8(0))
	f.Add(record(64), uint8(8))
	f.Add([]byte("short"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, shift uint8) {
		// As it came, at any alignment, and with a header that is right.
		r := record(len(data) + 8)[min(int(shift%8), 8):][:len(data)]
		copy(r, data)
		for range 2 {
			v, tail, err := As[fixed](r)
			if err == nil {
				if len(tail) != len(r)-40 {
					t.Fatalf("%d bytes of tail in %d", len(tail), len(r))
				}
				texts := NewTexts(tail)
				taken := len(texts.Next(v.NameSize)) + len(texts.Next(uint32(v.OtherSize)))
				if (texts.End() == nil) != (taken == len(tail) && uint64(v.NameSize)+uint64(uint32(v.OtherSize)) == uint64(len(tail))) {
					t.Fatalf("took %d of %d: %v", taken, len(tail), texts.End())
				}
			}
			if _, err := Kind(r); err == nil && len(r) >= 24 {
				binary.NativeEndian.PutUint32(r[20:], uint32(len(r)))
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add([]byte("ls\x00bin\x00usr\x00"), false)
	f.Add([]byte("\x00\x00\xff"), true)
	f.Fuzz(func(t *testing.T, components []byte, truncated bool) {
		var in Interner
		path := in.Path(components, truncated)
		if !utf8.ValidString(path) {
			t.Errorf("%q is not UTF-8", path)
		}
		if !truncated && !strings.HasPrefix(path, "/") {
			t.Errorf("%q of a whole path is not absolute", path)
		}
		first := components[bytes.LastIndexByte(bytes.TrimSuffix(components, []byte{0}), 0)+1:]
		if truncated && len(bytes.TrimSuffix(first, []byte{0})) > 0 && first[0] != '/' && strings.HasPrefix(path, "/") {
			t.Errorf("%q of a cut path looks absolute", path)
		}
	})
}
