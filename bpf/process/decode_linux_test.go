package process

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
	"otelcol-ebpf/internal/event"
	"otelcol-ebpf/internal/kernel"
	"otelcol-ebpf/internal/otlp"
	"otelcol-ebpf/internal/probe"
	"otelcol-ebpf/internal/testutil"
)

var update = flag.Bool("update", false, "write the golden files anew")

// execBytes makes an exec record as the kernel writes it.
func execBytes(change func(*bpfExecEvent), texts ...string) []byte {
	fixed := bpfExecEvent{}
	fixed.Header.Kind = uint32(bpfEventKindEVENT_EXEC)
	sizes := []*uint32{
		&fixed.ExecutableSize, &fixed.DirectorySize, &fixed.ParentSize,
		&fixed.ScriptSize, &fixed.InterpreterSize, &fixed.ArgsSize,
	}
	var tail []byte
	for i, text := range texts {
		*sizes[i] = uint32(len(text))
		tail = append(tail, text...)
	}
	fixed.Header.Size = uint32(int(unsafe.Sizeof(fixed)) + len(tail))
	if change != nil {
		change(&fixed)
	}
	return append(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&fixed)), unsafe.Sizeof(fixed))), tail...)
}

func TestDecodeExec(t *testing.T) {
	flags := func(f bpfExecFlag) func(*bpfExecEvent) { return func(e *bpfExecEvent) { e.Flags = f } }
	for name, test := range map[string]struct {
		record []byte
		want   execRecord
	}{
		"paths are turned round": {
			execBytes(flags(bpfExecFlagEXEC_HAS_PARENT_EXECUTABLE), "ls\x00bin\x00usr\x00", "root\x00", "sh\x00bin\x00"),
			execRecord{executable: "/usr/bin/ls", directory: "/root", parent: "/bin/sh"},
		},
		"the root": {
			execBytes(nil, "init\x00", ""),
			execRecord{executable: "/init", directory: "/"},
		},
		"a cut path does not begin with a slash": {
			execBytes(flags(bpfExecFlagEXEC_EXECUTABLE_TRUNCATED), "c\x00b\x00", ""),
			execRecord{executable: "b/c", directory: "/"},
		},
		"a kernel thread's child has no parent executable": {
			execBytes(nil, "modprobe\x00", "", ""),
			execRecord{executable: "/modprobe", directory: "/"},
		},
		"script": {
			execBytes(flags(bpfExecFlagEXEC_SCRIPT), "sh\x00", "", "", "./x\x00", "/bin/sh\x00"),
			execRecord{executable: "/sh", directory: "/", script: "./x", interpreter: "/bin/sh"},
		},
		"arguments": {
			execBytes(nil, "a\x00", "", "", "", "", "a\x00\x00b c\x00"),
			execRecord{executable: "/a", directory: "/", args: []string{"a", "", "b c"}},
		},
		"arguments cut in the middle": {
			execBytes(flags(bpfExecFlagEXEC_ARGS_TRUNCATED), "a\x00", "", "", "", "", "a\x00bcd"),
			execRecord{executable: "/a", directory: "/", args: []string{"a", "bcd"}},
		},
		"names that are not UTF-8": {
			execBytes(nil, "\xff\x00", ""),
			execRecord{executable: "/\uFFFD", directory: "/"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeExec(test.record, &event.Interner{})
			require.NoError(t, err)
			got.bpfExecEvent = nil
			assert.Equal(t, test.want, got)
		})
	}
}

func TestDecodeMalformed(t *testing.T) {
	e := newTestEmitter(t)
	kind := func(k uint32) []byte {
		return execBytes(func(e *bpfExecEvent) { e.Header.Kind = k })
	}
	for name, record := range map[string][]byte{
		"empty":               {},
		"less than a header":  make([]byte, 23),
		"header only":         execBytes(nil)[:24],
		"unknown kind":        kind(99),
		"exec as exit":        kind(uint32(bpfEventKindEVENT_EXIT)),
		"exec as oom":         kind(uint32(bpfEventKindEVENT_OOM)),
		"exec as fork":        kind(uint32(bpfEventKindEVENT_FORK)),
		"size lies":           execBytes(func(e *bpfExecEvent) { e.Header.Size++ }, "a\x00"),
		"text beyond the end": execBytes(func(e *bpfExecEvent) { e.ArgsSize = 1 << 31 }, "a\x00"),
		"text left over":      execBytes(func(e *bpfExecEvent) { e.ExecutableSize = 0 }, "a\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			assert.ErrorIs(t, e.record(record), event.ErrMalformed)
		})
	}
}

// newTestEmitter returns an emitter that needs no kernel.
func newTestEmitter(tb testing.TB) *emitter {
	tb.Helper()
	clock, err := kernel.NewClock()
	require.NoError(tb, err)
	env := probe.Env{
		Identity: enrich.New(enrich.Options{RootPath: tb.TempDir(), Logger: zap.NewNop()}),
		Clock:    clock, Report: &probe.Report{},
	}
	return newEmitter(&process{env: env}, otlp.NewLogs(Type().Metadata, otlp.Options{}, nil))
}

func FuzzRecord(f *testing.F) {
	f.Add(execBytes(nil, "ls\x00bin\x00", "root\x00"))
	f.Add(execBytes(func(e *bpfExecEvent) { e.Header.Kind = uint32(bpfEventKindEVENT_EXIT) }))
	f.Add([]byte{})
	e := newTestEmitter(f)
	f.Fuzz(func(_ *testing.T, record []byte) {
		// Records from the ring are aligned.
		aligned := make([]uint64, len(record)/8+1)
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(&aligned[0])), len(aligned)*8)[:len(record)]
		copy(bytes, record)
		_ = e.record(bytes)
	})
}

func TestChooseVariants(t *testing.T) {
	raw := []string{bpfProgRawSchedProcessExec, bpfProgRawSchedPrepareExec, bpfProgRawSchedProcessExit}
	for name, test := range map[string]struct {
		args map[string]int
		want variants
	}{
		"5.10 and 6.1": {
			map[string]int{"sched_process_exit": 1, "mark_victim": 2},
			variants{leaveOut: append([]string{bpfProgSchedProcessExitGroup, bpfProgSchedPrepareExec}, raw...), namesVictim: true},
		},
		"before the victim was named": {
			map[string]int{"sched_process_exit": 1, "mark_victim": 1},
			variants{leaveOut: append([]string{bpfProgSchedProcessExitGroup, bpfProgMarkVictim, bpfProgSchedPrepareExec}, raw...)},
		},
		"6.18": {
			map[string]int{"sched_process_exit": 2, "mark_victim": 2, "sched_prepare_exec": 2},
			variants{leaveOut: append([]string{bpfProgSchedProcessExit}, raw...), exitTellsGroup: true, namesVictim: true, seesOldCredentials: true},
		},
		"7.0": {
			map[string]int{"sched_process_exit": 2, "mark_victim": 2, "sched_prepare_exec": 2, "classic": 1},
			variants{leaveOut: []string{bpfProgSchedProcessExit}, classic: true, exitTellsGroup: true, namesVictim: true, seesOldCredentials: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, chooseVariants(test.args["classic"] == 1, func(name string) int { return test.args[name] }))
		})
	}
}

func TestNames(t *testing.T) {
	assert.Equal(t, "SIGKILL", signalName(9))
	assert.Equal(t, "SIGRTMIN+3", signalName(35))
	assert.Equal(t, []string{"CAP_CHOWN", "CAP_CHECKPOINT_RESTORE", "CAP_41"}, capabilityNames(1|1<<40|1<<41))
	assert.Empty(t, errorType(unix.WaitStatus(0)))
	assert.Equal(t, "3", errorType(unix.WaitStatus(3<<8)))
	assert.Equal(t, "SIGSEGV", errorType(unix.WaitStatus(11|0x80)))
}

func TestConfigValidate(t *testing.T) {
	require.NoError(t, Type().NewConfig().Validate())
	for _, n := range []uint32{0, 8193} {
		assert.ErrorContains(t, (&Config{MaxArgsBytes: n}).Validate(), "max_args_bytes: ")
	}
}

// TestGolden compares the shape of what leaves: everything but the values.
func TestGolden(t *testing.T) {
	r := record(t, &Config{CaptureArgs: true, MaxArgsBytes: 4096}, testutil.EnvOptions{})
	cmd := exec.Command("/bin/true", "argument")
	require.NoError(t, cmd.Run())
	r.one(t, "process.exit", cmd.Process.Pid)
	metrics := r.collect(t)
	r.finish(t)
	shape := map[string]any{
		"process.exec": keysOf(r.one(t, "process.exec", cmd.Process.Pid)),
		"process.exit": keysOf(r.one(t, "process.exit", cmd.Process.Pid)),
	}
	for _, rm := range metrics.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				if metric.Name() == "linux.process.exec" || metric.Name() == "linux.process.created" {
					shape[metric.Name()] = shapeOf(metric)
				}
			}
		}
	}
	text, err := json.MarshalIndent(shape, "", "  ")
	require.NoError(t, err)
	golden := filepath.Join("testdata", "golden.json")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, append(text, '\n'), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.JSONEq(t, string(want), string(text))
}

func keysOf(f found) map[string]any {
	attributes := map[string]string{}
	for key, value := range f.Attributes().All() {
		attributes[key] = value.Type().String()
	}
	return map[string]any{
		"severity":   f.SeverityNumber().String(),
		"body":       f.Body().Type().String(),
		"attributes": attributes,
	}
}

func shapeOf(metric pmetric.Metric) map[string]any {
	return map[string]any{
		"unit": metric.Unit(), "type": metric.Type().String(), "description": metric.Description(),
		"monotonic": metric.Sum().IsMonotonic(), "temporality": metric.Sum().AggregationTemporality().String(),
	}
}
