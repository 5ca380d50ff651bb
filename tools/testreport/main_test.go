package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const list = "internal/ring.TestDrain: root is missing  # developers' machines\n" +
		"test/e2e.Test*: OTELCOL_EBPF_BINARY is not set  # make e2e sets it\n"
	skip := func(pkg, test, message string) string {
		return `{"Action":"output","Package":"otelcol-ebpf/` + pkg + `","Test":"` + test + `","Output":"    a_test.go:1: ` + message + `\n"}` + "\n" +
			`{"Action":"skip","Package":"otelcol-ebpf/` + pkg + `","Test":"` + test + `"}` + "\n"
	}
	const (
		pass = `{"Action":"pass","Package":"otelcol-ebpf/internal/ring","Test":"TestA"}` + "\n"
		ok   = `{"Action":"output","Package":"otelcol-ebpf/internal/ring","Output":"ok  \totelcol-ebpf/internal/ring\t1.2s\n"}` + "\n" +
			`{"Action":"pass","Package":"otelcol-ebpf/internal/ring"}` + "\n"
	)
	for name, c := range map[string]struct{ in, wantOut, wantErr string }{
		"passes":          {pass + ok, "ok  \totelcol-ebpf/internal/ring\t1.2s\n1 passed, 0 failed, 0 skipped\n", ""},
		"allowed skip":    {pass + skip("internal/ring", "TestDrain", "root is missing") + ok, "1 passed, 0 failed, 1 skipped", ""},
		"pattern":         {pass + skip("test/e2e", "TestReload", "OTELCOL_EBPF_BINARY is not set"), "1 skipped", ""},
		"other reason":    {pass + skip("internal/ring", "TestDrain", "no BTF") + ok, "no BTF", "does not allow these skips: internal/ring.TestDrain"},
		"other test":      {pass + skip("internal/ring", "TestDrainMore", "root is missing") + ok, "", "does not allow these skips"},
		"nothing ran":     {ok, "", "no test ran"},
		"no output":       {"", "", "no test ran"},
		"failed":          {`{"Action":"output","Package":"otelcol-ebpf/a","Test":"TestB","Output":"want 1\n"}` + "\n" + `{"Action":"fail","Package":"otelcol-ebpf/a","Test":"TestB"}` + "\n", "want 1\n", "failed: a.TestB"},
		"build failed":    {`{"ImportPath":"otelcol-ebpf/a","Action":"build-output","Output":"undefined: x\n"}` + "\n" + `{"Action":"fail","Package":"otelcol-ebpf/a"}` + "\n" + pass, "undefined: x\n", "failed: a"},
		"did not end":     {pass + `{"Action":"output","Package":"otelcol-ebpf/a","Test":"TestB","Output":"panic: boom\n"}` + "\n", "panic: boom", "failed: a.TestB (did not end)"},
		"package panics":  {pass + `{"Action":"output","Package":"otelcol-ebpf/a","Output":"panic: boom\n"}` + "\n" + `{"Action":"fail","Package":"otelcol-ebpf/a"}` + "\n", "panic: boom", "failed: a"},
		"not JSON at all": {"go: no such tool\n", "go: no such tool\n", "no test ran"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "skips")
			if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err := run(strings.NewReader(c.in), &out, "otelcol-ebpf", file)
			if !strings.Contains(out.String(), c.wantOut) {
				t.Errorf("got output %q, want %q in it", out.String(), c.wantOut)
			}
			switch {
			case c.wantErr == "" && err != nil:
				t.Errorf("unexpected error: %v", err)
			case c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)):
				t.Errorf("got error %v, want %q in it", err, c.wantErr)
			}
		})
	}
}

func TestParseAllowed(t *testing.T) {
	for _, line := range []string{"internal/ring.TestA", "internal/ring.TestA: message", "internal/ring: message  # why", "internal/ring.TestA # why"} {
		if list, err := parseAllowed(line); err == nil {
			t.Errorf("%q: got %v, want an error", line, list)
		}
	}
}
