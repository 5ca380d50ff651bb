//go:build linux

package enrich

import (
	"encoding/binary"
	"strings"
	"testing"
)

func rawCgroupEvent(id uint64, kind, size uint32, path string) []byte {
	raw := binary.LittleEndian.AppendUint64(nil, 1)
	raw = binary.LittleEndian.AppendUint64(raw, id)
	raw = binary.LittleEndian.AppendUint32(raw, kind)
	raw = binary.LittleEndian.AppendUint32(raw, size)
	return append(raw, path...)
}

func TestDecodeCgroup(t *testing.T) {
	longest := strings.Repeat("x", 1022)
	for _, test := range []struct {
		name string
		raw  []byte
		want cgroupEvent
		ok   bool
	}{
		{"mkdir", rawCgroupEvent(7, 1, 26, "/a"), cgroupEvent{7, false, "/a"}, true},
		{"mkdir with the longest path", rawCgroupEvent(7, 1, 24+1022, longest), cgroupEvent{7, false, longest}, true},
		{"mkdir without a path", rawCgroupEvent(7, 1, 24, ""), cgroupEvent{7, false, ""}, true},
		{"the ring pads to eight bytes", rawCgroupEvent(7, 1, 26, "/a\x00\x00\x00\x00"), cgroupEvent{7, false, "/a"}, true},
		{"rmdir", rawCgroupEvent(8, 2, 24, ""), cgroupEvent{8, true, ""}, true},
		{"another kind", rawCgroupEvent(8, 3, 24, ""), cgroupEvent{}, false},
		{"short", rawCgroupEvent(8, 1, 24, "")[:23], cgroupEvent{}, false},
		{"tells more than there is", rawCgroupEvent(8, 1, 27, "/a"), cgroupEvent{}, false},
		{"tells less than a header", rawCgroupEvent(8, 1, 23, "/a"), cgroupEvent{}, false},
		{"long", rawCgroupEvent(8, 1, 24+1025, strings.Repeat("x", 1025)), cgroupEvent{}, false},
		{"empty", nil, cgroupEvent{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeCgroup(test.raw)
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func FuzzDecodeCgroup(f *testing.F) {
	f.Add(rawCgroupEvent(7, 1, 26, "/a"))
	f.Add(rawCgroupEvent(8, 2, 24, ""))
	f.Fuzz(func(t *testing.T, raw []byte) {
		event, err := decodeCgroup(raw)
		if err == nil && len(event.path) > len(raw)-eventHeader {
			t.Errorf("a path of %d bytes from %d", len(event.path), len(raw))
		}
	})
}
