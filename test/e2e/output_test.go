//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// lines are the whole lines of a file that may still grow; a file that does not exist yet has none.
func lines(path string) ([][]byte, error) {
	content, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := bytes.Split(content, []byte("\n"))
	return all[:len(all)-1], nil
}

// A logRecord is a record with its resource.
type logRecord struct {
	plog.LogRecord
	resource pcommon.Map
}

func (r logRecord) str(key string) string {
	if v, ok := r.Attributes().Get(key); ok {
		return v.AsString()
	}
	return ""
}

// readLogs returns the records that the file exporter has written to dir and that want is true for.
func readLogs(dir string, want func(logRecord) bool) ([]logRecord, error) {
	all, err := lines(filepath.Join(dir, "logs.json"))
	if err != nil {
		return nil, err
	}
	var found []logRecord
	for _, line := range all {
		logs, err := new(plog.JSONUnmarshaler).UnmarshalLogs(line)
		if err != nil {
			return nil, fmt.Errorf("parse logs: %w", err)
		}
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					if r := (logRecord{record, resource.Resource().Attributes()}); want(r) {
						found = append(found, r)
					}
				}
			}
		}
	}
	return found, nil
}

// event finds the records of one kind about one executable.
func event(name, executable string) func(logRecord) bool {
	return func(r logRecord) bool {
		return r.EventName() == name && r.str("process.executable.path") == executable
	}
}

// readMetrics returns every appearance of a metric in what the file exporter has written to dir, oldest first.
func readMetrics(dir, name string) ([]pmetric.Metric, error) {
	all, err := lines(filepath.Join(dir, "metrics.json"))
	if err != nil {
		return nil, err
	}
	var found []pmetric.Metric
	for _, line := range all {
		metrics, err := new(pmetric.JSONUnmarshaler).UnmarshalMetrics(line)
		if err != nil {
			return nil, fmt.Errorf("parse metrics: %w", err)
		}
		for _, resource := range metrics.ResourceMetrics().All() {
			for _, scope := range resource.ScopeMetrics().All() {
				for _, metric := range scope.Metrics().All() {
					if metric.Name() == name {
						found = append(found, metric)
					}
				}
			}
		}
	}
	return found, nil
}

// largest is the largest value of a sum's points that carry the attribute.
func largest(metrics []pmetric.Metric, key, value string) int64 {
	var most int64
	for _, metric := range metrics {
		for _, point := range metric.Sum().DataPoints().All() {
			if v, ok := point.Attributes().Get(key); ok && v.AsString() == value {
				most = max(most, point.IntValue())
			}
		}
	}
	return most
}

// exitCode is the variable that makes this test's binary do nothing but exit.
const exitCode = "E2E_EXIT_CODE"

func TestMain(m *testing.M) {
	if code := os.Getenv(exitCode); code != "" {
		n, err := strconv.Atoi(code)
		if err != nil {
			n = 125
		}
		os.Exit(n)
	}
	os.Exit(m.Run())
}

// A program is an executable that nobody else runs: a copy of this test's own.
type program string

func newProgram(t *testing.T) program {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "e2e-program")
	if err := os.WriteFile(path, self, 0o700); err != nil { //nolint:gosec // it is executed
		t.Fatal(err)
	}
	// The kernel reports the path without symbolic links.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		t.Fatal(err)
	}
	return program(path)
}

// run executes the program, lets it exit with the code and returns its process id.
func (p program) run(t *testing.T, code int) int {
	t.Helper()
	cmd := exec.Command(string(p), "secret-argument")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", exitCode, code))
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("the program exited with %d, want %d", got, code)
	}
	return cmd.Process.Pid
}

// arrives waits for exactly one exec record of the program and returns it.
func (p program) arrives(t *testing.T, dir string, pid int) logRecord {
	t.Helper()
	var record logRecord
	eventually(t, arrival, func() error {
		records, err := readLogs(dir, func(r logRecord) bool {
			return event("process.exec", string(p))(r) && r.str("process.pid") == strconv.Itoa(pid)
		})
		if err != nil {
			return err
		}
		if len(records) != 1 {
			return fmt.Errorf("%d process.exec records of %s (%d), want 1", len(records), p, pid)
		}
		record = records[0]
		return nil
	})
	return record
}
