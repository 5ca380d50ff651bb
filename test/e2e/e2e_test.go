//go:build linux

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/sys/unix"
)

// toFiles are options for testdata/pipelines/file.yaml, and the folder that it writes to.
func toFiles(t *testing.T) (options, string) {
	t.Helper()
	dir := sharedDir(t)
	_, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return options{
		config: pipeline(t, "file.yaml"),
		env:    []string{"E2E_OUT=" + dir, "E2E_METRICS_PORT=" + port},
	}, dir
}

func TestValidateExamples(t *testing.T) {
	binary(t)
	examples, err := filepath.Glob("../../config/examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, example := range examples {
		t.Run(filepath.Base(example), func(t *testing.T) {
			o := options{config: example, env: []string{"K8S_NODE_NAME=node"}, asNobody: os.Geteuid() == 0}
			if !o.asNobody {
				if o.config, err = filepath.Abs(example); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := o.command(t, "validate").CombinedOutput(); err != nil {
				t.Errorf("refused: %v\n%s", err, out)
			}
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	binary(t)
	for name, c := range map[string]struct{ set, want string }{
		"unknown key":         {"receivers::ebpf::collection_intervall: 1s", "collection_intervall"},
		"unknown limit":       {"receivers::ebpf::limits::series: 1", "series"},
		"negative interval":   {"receivers::ebpf::collection_interval: -1s", "collection_interval"},
		"interval of no unit": {"receivers::ebpf::collection_interval: 15", "collection_interval"},
		"unknown error mode":  {"receivers::ebpf::error_mode: panic", "error_mode"},
		"unknown scope":       {"receivers::ebpf::scope: pod", "scope"},
		"unknown histogram":   {"receivers::ebpf::histogram: summary", "histogram"},
		"odd ring":            {"receivers::ebpf::limits::ring_buffer: 3MiB", "limits::ring_buffer"},
		"ring of no unit":     {"receivers::ebpf::limits::ring_buffer: 4 apples", "limits::ring_buffer"},
		"no series":           {"receivers::ebpf::limits::max_series: -1", "limits::max_series"},
		"unknown probe":       {"receivers::ebpf::probes::sycalls: {}", "sycalls"},
		"no probe":            {"receivers::ebpf::probes: {}", "probes"},
		"probe's key":         {"receivers::ebpf::probes::process::capture_arg: true", "capture_arg"},
		"probe's bound":       {"receivers::ebpf::probes::process::max_args_bytes: 0", "probes::process::max_args_bytes"},
		"contradiction":       {"receivers::ebpf::probes::syscalls: {include: [read], exclude: [write]}", "probes::syscalls"},
		"unknown system call": {"receivers::ebpf::probes::syscalls: {include: [raed]}", "probes::syscalls::include"},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := toFiles(t)
			o.set = []string{c.set}
			out, err := o.command(t, "validate").CombinedOutput()
			if err == nil {
				t.Fatalf("%s was not refused", c.set)
			}
			// Keys are joined by :: or a dot, depending on who joins them.
			text := strings.ReplaceAll(string(out), ".", "::")
			if !strings.Contains(text, c.want) || !strings.Contains(text, "ebpf") {
				t.Errorf("%s was refused without the key's path %s:\n%s", c.set, c.want, out)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	needRoot(t)
	o, dir := toFiles(t)
	startReady(t, o)
	p := newProgram(t)
	before := time.Now()
	pid := p.run(t, 3)

	t.Run("process.exec", func(t *testing.T) { checkExec(t, p.arrives(t, dir, pid), p, pid, before) })
	t.Run("process.exit", func(t *testing.T) {
		eventually(t, arrival, func() error {
			records, err := readLogs(dir, event("process.exit", string(p)))
			if err == nil && (len(records) != 1 || records[0].str("process.pid") != strconv.Itoa(pid) || records[0].str("process.exit.code") != "3") {
				err = fmt.Errorf("%d process.exit records, want one of %d with exit code 3", len(records), pid)
			}
			return err
		})
	})
	t.Run("syscalls", func(t *testing.T) { checkSyscalls(t, dir) })
	t.Run("scheduler", func(t *testing.T) { checkRunQueue(t, dir) })
	t.Run("own telemetry", func(t *testing.T) { checkTelemetry(t, o.env[1]) })
}

func checkExec(t *testing.T, record logRecord, p program, pid int, before time.Time) {
	t.Helper()
	for key, want := range map[string]string{
		"process.pid":             strconv.Itoa(pid),
		"process.parent_pid":      strconv.Itoa(os.Getpid()),
		"process.executable.path": string(p),
		"process.executable.name": filepath.Base(string(p)),
		"process.user.id":         strconv.Itoa(os.Geteuid()),
	} {
		if got := record.str(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if record.SeverityNumber() != plog.SeverityNumberInfo {
		t.Errorf("severity is %v, want INFO", record.SeverityNumber())
	}
	// A tick of the boot-time clock's conversion is allowed for.
	if at := record.Timestamp().AsTime(); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("the exec is dated %v, want after %v", at, before)
	}
	if record.ObservedTimestamp() < record.Timestamp() {
		t.Errorf("observed at %v, before it happened at %v", record.ObservedTimestamp(), record.Timestamp())
	}
	if strings.Contains(fmt.Sprint(record.Attributes().AsRaw(), record.Body().AsString()), "secret-argument") {
		t.Error("arguments are captured though nobody asked for them")
	}
}

// checkSyscalls makes calls that are rare otherwise, and looks for as many.
func checkSyscalls(t *testing.T, dir string) {
	t.Helper()
	const calls = 50_000
	count := func() (int64, error) {
		metrics, err := readMetrics(dir, "linux.syscall.count")
		for _, metric := range metrics {
			if sum := metric.Sum(); !sum.IsMonotonic() || sum.AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
				t.Fatalf("%s is not a cumulative monotonic sum", metric.Name())
			}
		}
		return largest(metrics, "linux.syscall.name", "getpgid"), err
	}
	for range calls {
		if _, err := unix.Getpgid(0); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, arrival, func() error {
		n, err := count()
		if err == nil && n < calls {
			err = fmt.Errorf("linux.syscall.count of getpgid is %d, want %d or more", n, calls)
		}
		return err
	})
}

func checkRunQueue(t *testing.T, dir string) {
	t.Helper()
	eventually(t, arrival, func() error {
		metrics, err := readMetrics(dir, "linux.cpu.run_queue.duration")
		if err != nil {
			return err
		}
		for _, metric := range metrics {
			for _, point := range metric.ExponentialHistogram().DataPoints().All() {
				total := point.ZeroCount()
				for _, n := range point.Positive().BucketCounts().All() {
					total += n
				}
				if total != point.Count() {
					t.Fatalf("the buckets of %s hold %d, its count is %d", metric.Name(), total, point.Count())
				}
				if point.Count() > 0 && point.Sum() > 0 {
					return nil
				}
			}
		}
		return fmt.Errorf("linux.cpu.run_queue.duration has no count in %d appearances", len(metrics))
	})
}

// checkTelemetry looks for the receiver's own metrics at the port that env, E2E_METRICS_PORT=…, names.
func checkTelemetry(t *testing.T, env string) {
	t.Helper()
	_, port, _ := strings.Cut(env, "=")
	eventually(t, arrival, func() error {
		response, err := http.Get("http://127.0.0.1:" + port + "/metrics")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		for _, name := range []string{
			"otelcol_receiver_ebpf_events_read", "otelcol_receiver_ebpf_probe_state",
			"otelcol_receiver_accepted_log_records", "otelcol_receiver_accepted_metric_points",
		} {
			if !strings.Contains(string(text), "\n"+name) {
				return fmt.Errorf("the Collector's own metrics lack %s", name)
			}
		}
		return nil
	})
}

func TestSecondCollector(t *testing.T) {
	needRoot(t)
	dir := sharedDir(t)
	env := []string{"E2E_OUT=" + dir, "E2E_ENDPOINT=" + freeAddress(t)}
	startReady(t, options{config: pipeline(t, "otlp-receive.yaml"), env: env})
	startReady(t, options{config: pipeline(t, "otlp-send.yaml"), env: env})
	p := newProgram(t)
	before := time.Now()
	pid := p.run(t, 0)
	checkExec(t, p.arrives(t, dir, pid), p, pid, before)
	checkSyscalls(t, dir)
	checkRunQueue(t, dir)
}

func TestReload(t *testing.T) {
	needRoot(t)
	o, dir := toFiles(t)
	c := startReady(t, o)
	p := newProgram(t)
	p.arrives(t, dir, p.run(t, 0))
	first, descriptors := c.objects(t), 0
	if len(first.programs) == 0 || len(first.maps) == 0 || len(first.links) == 0 {
		t.Fatalf("the Collector holds %v", first)
	}
	previous := first
	for reload := 1; reload <= 3; reload++ {
		c.signal(t, syscall.SIGHUP)
		c.waitReady(t, reload+1)
		p.arrives(t, dir, p.run(t, 0))
		// The maps behind global variables stay until Go's next garbage collection, which may be two minutes away in
		// an idle process: cilium/ebpf maps them into memory and has no call to undo that. Held files are counted below.
		eventually(t, stopTime, kernelObjects{programs: previous.programs, links: previous.links}.left)
		now := c.objects(t)
		if len(now.programs) != len(first.programs) || len(now.maps) != len(first.maps) || len(now.links) != len(first.links) {
			t.Errorf("after reload %d the Collector holds %v, before the first one %v", reload, now, first)
		}
		// The first reload may keep something once and for all; further ones must not add to it.
		if n := c.descriptors(t); reload == 1 {
			descriptors = n
		} else if n > descriptors+1 {
			t.Errorf("after reload %d it has %d files open, after the first one %d", reload, n, descriptors)
		}
		previous = now
	}
	c.signal(t, syscall.SIGTERM)
	if code := c.waitExit(t); code != 0 {
		t.Errorf("it exited with %d", code)
	}
	eventually(t, stopTime, previous.left)
}

func TestTerminate(t *testing.T) {
	needRoot(t)
	o, dir := toFiles(t)
	// Only the collection at the end can deliver metrics, and only its flush the last record.
	o.set = []string{"receivers::ebpf::collection_interval: 10m", "receivers::ebpf::initial_delay: 10m", "receivers::ebpf::limits::series_expiry: 0s"}
	c := startReady(t, o)
	objects := c.objects(t)
	p := newProgram(t)
	p.arrives(t, dir, p.run(t, 0))
	pid := p.run(t, 0)
	c.signal(t, syscall.SIGTERM)
	if code := c.waitExit(t); code != 0 {
		t.Errorf("it exited with %d, want 0", code)
	}
	eventually(t, stopTime, objects.left)
	records, err := readLogs(dir, event("process.exec", string(p)))
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 || records[1].str("process.pid") != strconv.Itoa(pid) {
		t.Errorf("%d process.exec records, want 2: the last one came just before SIGTERM", len(records))
	}
	for _, name := range []string{"linux.process.exec", "linux.syscall.count", "linux.cpu.run_queue.duration"} {
		if metrics, err := readMetrics(dir, name); err != nil || len(metrics) == 0 {
			t.Errorf("no %s at the end (%v)", name, err)
		}
	}
}

func TestKill(t *testing.T) {
	needRoot(t)
	o, _ := toFiles(t)
	c := startReady(t, o)
	objects := c.objects(t)
	// While it runs they must be found, or their absence later says nothing.
	if len(objects.programs) == 0 || objects.left() == nil {
		t.Fatalf("of the running Collector's %v nothing is found in the kernel", objects)
	}
	c.signal(t, syscall.SIGKILL)
	c.waitExit(t)
	eventually(t, stopTime, objects.left)
}

func TestUnprivileged(t *testing.T) {
	needRoot(t)
	missing := []string{"CAP_BPF", "CAP_PERFMON"}
	t.Run("propagate", func(t *testing.T) {
		o, _ := toFiles(t)
		o.asNobody = true
		o.set = []string{"receivers::ebpf::error_mode: propagate"}
		c := start(t, o)
		if code := c.waitExit(t); code == 0 {
			t.Error("it exited with 0, want a failure")
		}
		for _, name := range missing {
			if !strings.Contains(c.log.String(), name) {
				t.Errorf("%s is not named", name)
			}
		}
	})
	t.Run("ignore", func(t *testing.T) {
		o, _ := toFiles(t)
		o.asNobody = true
		o.set = []string{"receivers::ebpf::error_mode: ignore"}
		c := startReady(t, o)
		for _, name := range missing {
			c.waitLog(t, startTime, name, 1)
		}
		c.signal(t, syscall.SIGTERM)
		if code := c.waitExit(t); code != 0 {
			t.Errorf("it exited with %d, want 0", code)
		}
	})
}

// TestCapabilities starts the Collector as a user with the documented capabilities and no other privilege.
func TestCapabilities(t *testing.T) {
	needRoot(t)
	o, dir := toFiles(t)
	o.asNobody = true
	o.caps = []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}
	o.set = []string{"receivers::ebpf::error_mode: propagate"}
	startReady(t, o)
	p := newProgram(t)
	before := time.Now()
	pid := p.run(t, 0)
	checkExec(t, p.arrives(t, dir, pid), p, pid, before)
	checkSyscalls(t, dir)
	checkRunQueue(t, dir)
}
