package load

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// histogram is struct histogram of bpf/include/histogram.h with that many slots.
func histogram(slots uint32) *btf.Struct {
	u64, u32 := &btf.Int{Name: "u64", Size: 8}, &btf.Int{Name: "u32", Size: 4}
	return &btf.Struct{Name: "histogram", Size: 24 + 4*slots, Members: []btf.Member{
		{Name: "sum", Type: u64},
		{Name: "min", Type: u64, Offset: 64},
		{Name: "max", Type: u64, Offset: 128},
		{Name: "slots", Type: &btf.Array{Index: u32, Type: u32, Nelems: slots}, Offset: 192},
	}}
}

const maxSlots = 2 + 64<<3

func TestSizesOfMaps(t *testing.T) {
	u64 := &btf.Int{Name: "u64", Size: 8}
	behind := &btf.Struct{Name: "value", Size: 8 + 24 + 4*maxSlots, Members: []btf.Member{
		{Name: "count", Type: u64}, {Name: "duration", Type: &btf.Typedef{Name: "h", Type: histogram(maxSlots)}, Offset: 64},
	}}
	before := &btf.Struct{Name: "value", Size: 24 + 4*maxSlots + 8, Members: []btf.Member{
		{Name: "duration", Type: histogram(maxSlots)}, {Name: "count", Type: u64, Offset: 8 * (24 + 4*maxSlots)},
	}}
	for scale := range uint32(4) {
		slots := 2 + uint32(64)<<scale
		l := New(Settings{MaxSeries: 100, RingBytes: 1 << 20, HistogramScale: scale})
		for name, c := range map[string]struct {
			value  btf.Type
			size   uint32
			want   uint32
			hasBTF bool
		}{
			"a histogram":          {histogram(maxSlots), 24 + 4*maxSlots, 24 + 4*slots, false},
			"one at the end":       {behind, 8 + 24 + 4*maxSlots, 8 + 24 + 4*slots, false},
			"one not at the end":   {before, before.Size, before.Size, true},
			"none":                 {u64, 8, 8, true},
			"an empty struct":      {&btf.Struct{Name: "e"}, 8, 8, true},
			"only called that":     {&btf.Struct{Name: "histogram", Members: []btf.Member{{Name: "slots", Type: u64}}}, 8, 8, true},
			"a value without type": {nil, 16, 16, false},
		} {
			m := &ebpf.MapSpec{Type: ebpf.PerCPUHash, Value: c.value, ValueSize: c.size, MaxEntries: 3}
			l.size(m)
			assert.Equal(t, c.want, m.ValueSize, "%s, scale %d", name, scale)
			assert.Equal(t, c.hasBTF, m.Value != nil, name)
			assert.EqualValues(t, 3*100+overflowKeys, m.MaxEntries)
		}
	}
}

func TestSizesOfOtherMaps(t *testing.T) {
	l := New(Settings{MaxSeries: 100, RingBytes: 1 << 20})
	events := &ebpf.MapSpec{Name: "events", Type: ebpf.RingBuf, MaxEntries: 1}
	other := &ebpf.MapSpec{Name: "other", Type: ebpf.RingBuf, MaxEntries: 1}
	hash := &ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: 7, Value: histogram(maxSlots), ValueSize: 5}
	for _, m := range []*ebpf.MapSpec{events, other, hash} {
		l.size(m)
	}
	assert.EqualValues(t, 1<<20, events.MaxEntries)
	assert.EqualValues(t, 1, other.MaxEntries)
	assert.EqualValues(t, 7, hash.MaxEntries)
	assert.EqualValues(t, 5, hash.ValueSize)
	// A page at least, which not every kernel has of 4 KiB.
	New(Settings{RingBytes: 512}).size(events)
	assert.EqualValues(t, os.Getpagesize(), events.MaxEntries)
	// A probe that does not use a map says so with 0 entries: the overflow series stay.
	unused := &ebpf.MapSpec{Type: ebpf.PerCPUHash, MaxEntries: 0}
	l.size(unused)
	assert.EqualValues(t, overflowKeys, unused.MaxEntries)
}

// spec has the BTF of a kernel with or without a helper.
func kernelWith(t *testing.T, helper string) *btf.Spec {
	t.Helper()
	builder, err := btf.NewBuilder([]btf.Type{&btf.Enum{Name: "bpf_func_id", Size: 4, Values: []btf.EnumValue{{Name: helper, Value: 1}}}}, nil)
	require.NoError(t, err)
	raw, err := builder.Marshal(nil, nil)
	require.NoError(t, err)
	types, err := btf.LoadSpecFromReader(strings.NewReader(string(raw)))
	require.NoError(t, err)
	return types
}

func TestTaskStorage(t *testing.T) {
	pair := func() (storage, byTID *ebpf.MapSpec) {
		return &ebpf.MapSpec{Type: ebpf.TaskStorage, Flags: unix.BPF_F_NO_PREALLOC}, &ebpf.MapSpec{Type: ebpf.LRUHash, MaxEntries: 65536}
	}
	storage, byTID := pair()
	TaskStorage(kernelWith(t, "BPF_FUNC_task_storage_get"), storage, byTID)
	assert.Equal(t, ebpf.TaskStorage, storage.Type)
	assert.EqualValues(t, 1, byTID.MaxEntries, "it takes no memory")

	storage, byTID = pair()
	TaskStorage(kernelWith(t, "BPF_FUNC_map_lookup_elem"), storage, byTID)
	assert.Equal(t, ebpf.Hash, storage.Type, "a type that the old kernel knows")
	assert.EqualValues(t, 1, storage.MaxEntries)
	assert.Zero(t, storage.Flags)
	assert.EqualValues(t, 65536, byTID.MaxEntries)
}

func TestSetIgnoresWhatIsNotThere(t *testing.T) {
	assert.NoError(t, Set(&ebpf.CollectionSpec{}, "setting_scope", uint32(1)))
}

func TestSettingsAreKept(t *testing.T) {
	s := Settings{Scope: 2, SelfTGID: 3, MaxSeries: 4}
	assert.Equal(t, s, New(s).Settings())
}

func TestReadable(t *testing.T) {
	plain := fmt.Errorf("map create: %w", unix.EPERM)
	assert.Equal(t, plain, Readable(plain), "an error that is not the verifier's stays as it is")
	assert.ErrorIs(t, Readable(plain), fs.ErrPermission)
	assert.NoError(t, Readable(nil))

	silent := &ebpf.VerifierError{Cause: unix.EPERM}
	assert.ErrorIs(t, Readable(silent), fs.ErrPermission, "without a log it was not the verifier who refused")

	var log []string
	for i := range 5000 {
		log = append(log, fmt.Sprintf("%d: (b7) r0 = 0", i))
	}
	log = append(log, "R0 "+strings.Repeat("x", 5000), "processed 5000 insns")
	verifier := &ebpf.VerifierError{Cause: unix.EACCES, Log: log}
	err := Readable(fmt.Errorf("program tell: %w", verifier))
	assert.ErrorContains(t, err, "program tell: ")
	assert.ErrorContains(t, err, "refused by the kernel's verifier (permission denied):\n\t")
	assert.Less(t, len(err.Error()), 1000)
	assert.Equal(t, verifierLines, strings.Count(err.Error(), "\n"))
	assert.ErrorContains(t, err, "processed 5000 insns")
	assert.Len(t, verifier.Log, 5002, "the log itself is whole")

	var found *ebpf.VerifierError
	require.ErrorAs(t, err, &found)
	assert.Same(t, verifier, found)
	assert.ErrorIs(t, err, unix.EACCES)
	assert.NotErrorIs(t, err, fs.ErrPermission, "no privilege would help")
	assert.NotErrorIs(t, fmt.Errorf("probe x: %w", err), os.ErrPermission)
	assert.False(t, errors.Is(err, ebpf.ErrNotSupported))
}

func TestTellingLines(t *testing.T) {
	assert.Empty(t, tellingLines(nil))
	assert.Equal(t, []string{"a"}, tellingLines([]string{"a"}))
	var log []string
	for i := range 100 {
		log = append(log, fmt.Sprint(i))
	}
	assert.Equal(t, log[88:], tellingLines(log))
	log[50] = "Verification failed: Register Type Safety: Invalid dereference"
	assert.Equal(t, log[45:66], tellingLines(log))
	log[99] = "Verification failed: at the very end"
	assert.Equal(t, log[94:], tellingLines(log))
	assert.Equal(t, log[99:], tellingLines(log[99:]))
}
