// Package event decodes what probes send through their ring buffers: fixed
// structs that bpf2go generated, followed by strings whose sizes they hold.
package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// ErrMalformed is what every decoding error wraps.
var ErrMalformed = errors.New("malformed record")

// header is bpf/include/event.h's struct event_header.
type header struct {
	time     uint64
	cgroupID uint64
	kind     uint32
	size     uint32
}

// Kind is the probe's own kind of a record, from its header.
func Kind(record []byte) (uint32, error) {
	if len(record) < int(unsafe.Sizeof(header{})) {
		return 0, fmt.Errorf("%w: %d bytes are less than a header", ErrMalformed, len(record))
	}
	return binary.NativeEndian.Uint32(record[unsafe.Offsetof(header{}.kind):]), nil
}

// As views a record as its fixed struct T, which begins with a header, and
// returns the bytes that follow it. T must hold no pointers; the view shares the
// record's memory, and the record must be aligned to eight bytes, as the ring
// reader's are.
func As[T any](record []byte) (*T, []byte, error) {
	var fixed T
	size := int(unsafe.Sizeof(fixed))
	if least := max(size, int(unsafe.Sizeof(header{}))); len(record) < least {
		return nil, nil, fmt.Errorf("%w: %d bytes, want at least %d for %T", ErrMalformed, len(record), least, fixed)
	}
	claimed := binary.NativeEndian.Uint32(record[unsafe.Offsetof(header{}.size):])
	if int(claimed) != len(record) {
		return nil, nil, fmt.Errorf("%w: %T claims %d bytes, has %d", ErrMalformed, fixed, claimed, len(record))
	}
	if uintptr(unsafe.Pointer(&record[0]))%unsafe.Alignof(fixed) != 0 {
		return nil, nil, fmt.Errorf("%w: %T is not aligned", ErrMalformed, fixed)
	}
	return (*T)(unsafe.Pointer(&record[0])), record[size:], nil
}

// Texts cuts a record's tail into the strings it is made of. The zero value has
// none; End tells whether any was longer than what was there.
type Texts struct {
	rest []byte
	err  error
}

// NewTexts returns a cutter for a record's tail.
func NewTexts(tail []byte) *Texts {
	return &Texts{rest: tail}
}

// Next cuts off the next size bytes.
func (t *Texts) Next(size uint32) []byte {
	if uint64(size) > uint64(len(t.rest)) {
		if t.err == nil {
			t.err = fmt.Errorf("%w: text of %d bytes, %d left", ErrMalformed, size, len(t.rest))
		}
		t.rest = nil
		return nil
	}
	text := t.rest[:size:size]
	t.rest = t.rest[size:]
	return text
}

// End is nil when every text was there and nothing is left over.
func (t *Texts) End() error {
	if t.err == nil && len(t.rest) > 0 {
		return fmt.Errorf("%w: %d bytes left over", ErrMalformed, len(t.rest))
	}
	return t.err
}
