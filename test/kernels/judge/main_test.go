package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// console makes a console of lines in which ^ stands for the frame character, with the serial line's carriage returns.
func console(lines ...string) string {
	return strings.ReplaceAll(strings.Join(lines, "\r\n"), "^", frame) + "\r\n"
}

// whole surrounds the lines of package p's tests with the markers of a guest that ran in order.
func whole(status string, lines ...string) string {
	head := []string{"\x1bcSeaBIOS", "@@boot 6.1.0", "@@start p"}
	tail := []string{"@@exit p " + status, "@@taint 0", "@@done", "[   9.9] reboot: Power down"}
	return console(slices.Concat(head, lines, tail)...)
}

func TestJudge(t *testing.T) {
	pass := []string{"^=== RUN   TestA", "^--- PASS: TestA (0.01s)", "^PASS"}
	skips := []string{"^=== RUN   TestA", "^--- PASS: TestA (0.01s)", "^=== RUN   TestB", "    b_test.go:3: no loop device", "^--- SKIP: TestB (0.00s)", "^PASS"}
	for _, test := range []struct {
		name    string
		console string
		skips   string
		status  string
		partial bool
		want    []string // each a part of a line; none means that the kernel passes
	}{
		{name: "pass", console: whole("0", pass...)},
		{
			name:    "failure shows its output",
			console: whole("1", "^=== RUN   TestA", "    a_test.go:9: got 1, want 2", "^--- FAIL: TestA (0.01s)", "^FAIL"),
			want:    []string{"p.TestA failed", "got 1, want 2"},
		},
		{
			name:    "result after output without a newline",
			console: whole("1", "^=== RUN   TestA", "half a line^--- FAIL: TestA (0.01s)", "^FAIL"),
			want:    []string{"p.TestA failed", "half a line"},
		},
		{
			name:    "printed result is not a result",
			console: whole("0", "^=== RUN   TestA", "--- FAIL: TestA (0.01s)", "^--- PASS: TestA (0.01s)", "^PASS"),
		},
		{
			name:    "subtest",
			console: whole("1", "^=== RUN   TestA", "^=== RUN   TestA/x", "^    --- FAIL: TestA/x (0.01s)", "^--- FAIL: TestA (0.01s)", "^FAIL"),
			want:    []string{"p.TestA/x failed", "p.TestA failed"},
		},
		{name: "unexpected skip", console: whole("0", skips...), want: []string{"p.TestB skipped", "no loop device"}},
		{name: "expected skip", console: whole("0", skips...), skips: "6.1 p.TestB  # loop is a module"},
		{name: "expected skip on any kernel", console: whole("0", skips...), skips: "* p.TestB  # loop is a module"},
		{name: "skip expected on another kernel", console: whole("0", skips...), skips: "5.10 p.TestB  # x", want: []string{"p.TestB skipped"}},
		{name: "stale skip", console: whole("0", pass...), skips: "* p.TestA  # x", want: []string{"p.TestA passed: take it off"}},
		{name: "skip of a test that is gone", console: whole("0", pass...), skips: "* p.TestGone/x  # y", want: []string{"no such test"}},
		{name: "skip of a test not chosen", console: whole("0", pass...), skips: "* p.TestGone  # y", partial: true},
		{name: "skip in a package not run", console: whole("0", pass...), skips: "* q.TestGone  # y"},
		{name: "malformed skip", console: whole("0", pass...), skips: "6.1 p.TestB", want: []string{"not of the form"}},
		{name: "no test", console: whole("0", "testing: warning: no tests to run", "^PASS"), want: []string{"ran no test", "no tests to run"}},
		{name: "no test chosen", console: whole("0", "testing: warning: no tests to run", "^PASS"), partial: true},
		{
			name:    "panic",
			console: whole("2", "^=== RUN   TestA", "panic: boom", "goroutine 7 [running]:"),
			want:    []string{"p exited with 2; running: TestA", "panic: boom"},
		},
		{
			name:    "failure outside tests",
			console: whole("1", append(slices.Clone(pass), "leak found")...),
			want:    []string{"p exited with 1"},
		},
		{
			name:    "kernel panic",
			console: console("@@boot 6.1.0", "@@start p", "^=== RUN   TestA", "Kernel panic - not syncing"),
			want:    []string{"p did not end; running: TestA", "did not power off", "Kernel panic"},
		},
		{
			name:    "hang",
			console: console("@@boot 6.1.0", "@@start p", "^=== RUN   TestA"),
			status:  "124 600.0",
			want:    []string{"p did not end", "ran out of time"},
		},
		{name: "no boot", console: console("SeaBIOS"), want: []string{"p did not run", "SeaBIOS"}},
		{name: "oops", console: strings.Replace(whole("0", pass...), "@@taint 0", "@@taint 640", 1), want: []string{"oopsed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if test.status == "" {
				test.status = "0 9.5"
			}
			for name, text := range map[string]string{"6.1.console": test.console, "6.1.status": test.status, "skips": test.skips, "packages": "p\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			err := judge(&out, filepath.Join(dir, "skips"), filepath.Join(dir, "packages"), dir, test.partial, []string{"6.1"})
			if (err != nil) != (len(test.want) > 0) {
				t.Errorf("error %v, want one: %v", err, len(test.want) > 0)
			}
			if err != nil {
				out.WriteString(err.Error())
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in the output", want)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

func TestParseSkips(t *testing.T) {
	got, err := parseSkips("# comment\n\n5.10 probes/oom.TestKill/a.TestB#01   # task storage\n* ..TestRoot # root package\n")
	want := []skip{{"5.10", "probes/oom", "TestKill/a.TestB#01"}, {"*", ".", "TestRoot"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestCount(t *testing.T) {
	g := parseConsole(whole("1",
		"^=== RUN   TestA", "^--- PASS: TestA (0.01s)", "^=== RUN   TestB", "^--- SKIP: TestB (0.00s)", "^=== RUN   TestC", "^--- FAIL: TestC (0.00s)", "^FAIL"))
	pass, fail, skip := g.count()
	if pass != 1 || fail != 1 || skip != 1 || g.release != "6.1.0" || !g.done {
		t.Errorf("got %d passed, %d failed, %d skipped, release %q, done %v", pass, fail, skip, g.release, g.done)
	}
}
