package loadtest

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/testutil"
)

func settings() load.Settings {
	return load.Settings{
		Scope: 2, CgroupSource: 3, SelfTGID: 4194304, Metrics: true, EventsPerSecond: 12345,
		RingBytes: 64 << 10, HistogramScale: 1, HistogramBounds: []uint64{17, 18}, MaxSeries: 10,
	}
}

// spec is the collection as a probe hands it to the loader.
func spec(t *testing.T, loader *load.Loader) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := loadBpf()
	require.NoError(t, err)
	types, err := loader.Types()
	require.NoError(t, err)
	load.TaskStorage(types, spec.Maps[bpfMapStarted], spec.Maps[bpfMapStartedByTid])
	return spec
}

// checkDescriptors fails the test if this process still holds programs or maps after
// it. They live as long as a descriptor does; counting them all over the kernel would
// see those of tests that run at the same time.
func checkDescriptors(t *testing.T) {
	t.Helper()
	held := func() []string {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		var held []string
		for _, entry := range entries {
			target, err := os.Readlink("/proc/self/fd/" + entry.Name())
			if err == nil && strings.HasPrefix(target, "anon_inode:bpf") {
				held = append(held, target)
			}
		}
		return held
	}
	before := held()
	t.Cleanup(func() { assert.ElementsMatch(t, before, held()) })
}

func run(t *testing.T, program *ebpf.Program) uint32 {
	t.Helper()
	status, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	require.NoError(t, err)
	return status
}

// TestSettingsReachTheKernel asks a program what it sees.
func TestSettingsReachTheKernel(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	loader := load.New(settings())
	declared := spec(t, loader)
	collection, err := loader.Load(declared, bpfProgRefused)
	require.NoError(t, err)
	defer collection.Close()
	assert.NotContains(t, collection.Programs, bpfProgRefused)

	series := collection.Maps[bpfMapSeries]
	assert.EqualValues(t, 2*10+16, series.MaxEntries(), "multiples of max_series, and the overflow series")
	assert.EqualValues(t, 8+24+4*(2+64<<1), series.ValueSize(), "the slots of scale 1")
	assert.EqualValues(t, 64<<10, collection.Maps[bpfMapEvents].MaxEntries())
	require.NoError(t, load.InsertOverflow(series, bpfSeriesKey{Scope: load.OverflowScope}))
	assert.Error(t, load.InsertOverflow(series, bpfSeriesKey{Scope: load.OverflowScope}), "it is there already")

	require.Zero(t, run(t, collection.Programs[bpfProgTell]))
	section, err := collection.Maps[".bss"].LookupBytes(uint32(0))
	require.NoError(t, err)
	var told bpfTold
	_, err = binary.Decode(section[declared.Variables["told"].Offset:], binary.NativeEndian, &told)
	require.NoError(t, err)
	assert.Equal(t, bpfTold{
		Scope: 2, CgroupSource: 3, SelfTgid: 4194304, Metrics: 1, EventsPerSecond: 12345, HistogramScale: 1,
		Bounds: [2]uint64{17, 0},
	}, told)
	assert.Equal(t, uint64(1), total(t, series))
}

// total is the sum over all CPUs of the overflow series' count, the first field.
func total(t *testing.T, series *ebpf.Map) (sum uint64) {
	t.Helper()
	var values [][]byte
	require.NoError(t, series.Lookup(bpfSeriesKey{Scope: load.OverflowScope}, &values))
	for _, value := range values {
		require.Len(t, value, int(series.ValueSize()))
		sum += uint64(value[0])
	}
	return sum
}

// TestOneLoaderForMany: probes start one after the other with one loader, and each
// gets programs and maps of its own.
func TestOneLoaderForMany(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	loader := load.New(settings())
	var group sync.WaitGroup
	for range 4 {
		loaded := spec(t, loader)
		group.Go(func() {
			collection, err := loader.Load(loaded, bpfProgRefused)
			if assert.NoError(t, err) {
				collection.Close()
			}
		})
	}
	group.Wait()
}

// TestRefusedByTheVerifier: a person can read why, a program can tell it from a
// lack of privilege, and nothing stays loaded.
func TestRefusedByTheVerifier(t *testing.T) {
	testutil.RequireBPF(t)
	checkDescriptors(t)
	loader := load.New(settings())
	collection, err := loader.Load(spec(t, loader))
	require.Nil(t, collection)
	require.Error(t, err)
	t.Log(err)
	assert.ErrorContains(t, err, "program refused: ")
	assert.ErrorContains(t, err, "refused by the kernel's verifier (permission denied)")
	assert.ErrorContains(t, err, "map_value_or_null")
	assert.Less(t, len(err.Error()), 3000)
	assert.LessOrEqual(t, strings.Count(err.Error(), "\n"), 24)

	var verifier *ebpf.VerifierError
	require.ErrorAs(t, err, &verifier)
	assert.NotEmpty(t, verifier.Log)
	assert.False(t, errors.Is(err, os.ErrPermission))
	assert.False(t, errors.Is(err, ebpf.ErrNotSupported))
}

// TestWrongSettings: a setting of another size is refused before the kernel sees it.
func TestWrongSettings(t *testing.T) {
	spec, err := loadBpf()
	require.NoError(t, err)
	assert.ErrorContains(t, load.Set(spec, "setting_scope", uint64(1)), "set setting_scope: ")
	assert.NoError(t, load.Set(spec, "setting_scope", uint32(1)))
	assert.NoError(t, load.Set(spec, "no_such_setting", uint32(1)))
}

// TestCloseFreesMaps: after Close the kernel has none of the collection's maps left,
// data sections included, without waiting for a garbage collection.
func TestCloseFreesMaps(t *testing.T) {
	testutil.RequireBPF(t)
	loader := load.New(settings())
	collection, err := loader.Load(spec(t, loader), bpfProgRefused)
	require.NoError(t, err)
	var ids []ebpf.MapID
	for name, m := range collection.Maps {
		info, err := m.Info()
		require.NoError(t, err)
		id, ok := info.ID()
		require.True(t, ok, name)
		ids = append(ids, id)
	}
	require.Greater(t, len(ids), 3)
	collection.Close()
	for _, id := range ids {
		// The kernel frees a map after an RCU grace period.
		require.Eventually(t, func() bool {
			m, err := ebpf.NewMapFromID(id)
			if err == nil {
				_ = m.Close()
			}
			return errors.Is(err, os.ErrNotExist)
		}, 5*time.Second, 10*time.Millisecond, "map %d is still there", id)
	}
}
