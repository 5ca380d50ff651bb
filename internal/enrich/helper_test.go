//go:build linux

package enrich

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/load"
	"otelcol-ebpf/internal/otlp"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// requireBPF is testutil.RequireBPF, which imports this package.
func requireBPF(tb testing.TB) {
	tb.Helper()
	_ = rlimit.RemoveMemlock()
	err := kernel.CheckBPF("/")
	switch {
	case err == nil && os.Geteuid() != 0:
		tb.Skip("needs root, to make cgroups")
	case err != nil && os.Getenv("REQUIRE_BPF") == "1":
		tb.Fatalf("REQUIRE_BPF=1, but: %v", err)
	case err != nil:
		tb.Skipf("needs BPF: %v", err)
	}
}

// newLoader returns a loader for the hierarchy that DetectSource finds.
func newLoader(tb testing.TB) (*load.Loader, string) {
	tb.Helper()
	source, mount, err := DetectSource("/")
	if err != nil {
		tb.Skip(err)
	}
	return load.New(load.Settings{CgroupSource: source, RingBytes: 1 << 20, MaxSeries: 1}), mount
}

// started returns an Identity that follows the kernel.
func started(tb testing.TB, options Options, loader *load.Loader) *Identity {
	tb.Helper()
	if options.Logger == nil {
		options.Logger = zaptest.NewLogger(tb)
	}
	i := New(options)
	if err := i.Start(tb.Context(), loader); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := i.Close(); err != nil {
			tb.Error(err)
		}
	})
	if loader != nil && i.Degraded() != nil {
		tb.Fatal(i.Degraded())
	}
	return i
}

// onlyEvents forbids looking into cgroupfs: what is known comes from the kernel's
// events.
func onlyEvents(i *Identity) {
	i.cgroups.search.Lock()
	defer i.cgroups.search.Unlock()
	i.cgroups.handles = false
	i.cgroups.lastScan = time.Now().Add(time.Hour)
}

// onlyScans forbids opening by handle.
func onlyScans(i *Identity) {
	i.cgroups.search.Lock()
	defer i.cgroups.search.Unlock()
	i.cgroups.handles = false
}

// scratchName is a cgroup at the hierarchy's root that no other test process has.
func scratchName() string {
	return fmt.Sprintf("otelcol-ebpf-test-%d", os.Getpid())
}

// makeCgroup makes the cgroup and its parents, and returns its id. The test's end
// removes what is left of the scratch cgroup.
func makeCgroup(tb testing.TB, mount, path string) uint64 {
	tb.Helper()
	tb.Cleanup(func() { removeCgroups(mount) })
	folder := filepath.Join(mount, scratchName(), path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		tb.Skipf("a writable cgroup file system is missing: %v", err)
	}
	id, err := inode(folder)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// removeCgroups removes the scratch cgroup of a hierarchy, the deepest first.
func removeCgroups(mount string) {
	scratch := filepath.Join(mount, scratchName())
	var found []string
	walk(scratch, func(_ uint64, path string) { found = append(found, filepath.Join(scratch, path)) })
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	for _, folder := range found {
		_ = os.Remove(folder)
	}
}

// attributes returns the resource's attributes by key.
func attributes(resource *otlp.Resource) map[string]any {
	values := make(map[string]any)
	m := pcommon.NewMap()
	resource.Fill(m)
	for key, value := range m.All() {
		values[key] = value.AsRaw()
	}
	return values
}

// wantContainer checks that the resource has these two and nothing else.
func wantContainer(tb testing.TB, resource *otlp.Resource, container, pod string) {
	tb.Helper()
	want := make(map[string]any)
	if container != "" {
		want["container.id"] = container
	}
	if pod != "" {
		want["k8s.pod.uid"] = pod
	}
	if got := attributes(resource); fmt.Sprint(got) != fmt.Sprint(want) {
		tb.Errorf("got the resource %v, want %v", got, want)
	}
}

// eventually waits until condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(15 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 15 s: %s", what)
		}
	}
}
