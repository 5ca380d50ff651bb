// Command testreport reads what `go test -json` prints and shows it as `go test` would without -v: the output of what
// failed, then one line for each package. It fails when a test failed, when no test ran, and when a test skipped that
// the list of allowed skips does not name. The list has one line for each:
//
//	<package>.<test>: <part of the skip's message>  # why that is all right
//
// The package is its path in the module ("." for the module's root); the test may end in * for whatever follows. A test
// that skips for another reason than the one listed is not allowed to.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	module := flag.String("module", "otelcol-ebpf", "the module whose packages are tested")
	skips := flag.String("skips", "", "list of allowed skips; without it every skip is allowed")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, *module, *skips); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, module, skipsFile string) error {
	r := report{out: out, module: module, tests: map[string]*test{}, skipsFile: skipsFile}
	if skipsFile != "" {
		text, err := os.ReadFile(skipsFile)
		if err != nil {
			return fmt.Errorf("read allowed skips: %w", err)
		}
		if r.allowed, err = parseAllowed(string(text)); err != nil {
			return fmt.Errorf("parse %s: %w", skipsFile, err)
		}
	}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		r.line(scanner.Bytes())
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read test events: %w", err)
	}
	return r.close()
}

// An allowance is a line of the list of allowed skips.
type allowance struct{ name, message string }

var allowedLine = regexp.MustCompile(`^(\S+?\.(?:Test|Fuzz|Example)\S*?\*?): (.*?)\s+#\s*\S`)

func parseAllowed(text string) ([]allowance, error) {
	var list []allowance
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := allowedLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d: %q is not of the form <package>.<test>: <message>  # why", i+1, line)
		}
		list = append(list, allowance{m[1], m[2]})
	}
	return list, nil
}

func (a allowance) covers(name, output string) bool {
	prefix, star := strings.CutSuffix(a.name, "*")
	return (name == a.name || star && strings.HasPrefix(name, prefix)) && strings.Contains(output, a.message)
}

// An event is what test2json prints on each line; `go doc test2json` describes it.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// A test is a test, or a package (by the name of the package alone), or a failed build.
type test struct {
	name   string // package.Test
	output strings.Builder
}

// A report gathers events as they come.
type report struct {
	out                     io.Writer
	module, skipsFile       string
	allowed                 []allowance
	tests                   map[string]*test
	passed, failed, skipped int
	failures, refused       []string
}

func (r *report) line(text []byte) {
	var e event
	if err := json.Unmarshal(text, &e); err != nil || e.Action == "" {
		fmt.Fprintf(r.out, "%s\n", text) // go's own complaints, such as a syntax error
		return
	}
	pkg := strings.TrimPrefix(strings.TrimPrefix(e.Package, r.module), "/")
	key := pkg + "." + e.Test
	t := r.tests[key]
	if t == nil {
		t = &test{name: key}
		r.tests[key] = t
	}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(r.out, e.Output)
	case e.Action == "output" && e.Test == "":
		r.packageOutput(t, e.Output)
	case e.Action == "output":
		t.output.WriteString(e.Output)
	case e.Test != "":
		r.ended(t, e.Action)
	case e.Action == "fail":
		// What the package printed by itself: a panic, a data race, a leak.
		fmt.Fprint(r.out, t.output.String())
		r.failures = append(r.failures, strings.TrimSuffix(t.name, "."))
	}
	if e.Test != "" && slices.Contains([]string{"pass", "fail", "skip"}, e.Action) {
		delete(r.tests, key)
	}
}

// packageOutput shows a package's closing line at once and keeps the rest for the case that the package fails.
func (r *report) packageOutput(t *test, output string) {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t", "---\t", "coverage:"} {
		if strings.HasPrefix(output, prefix) {
			fmt.Fprint(r.out, output)
			return
		}
	}
	if output != "PASS\n" && output != "FAIL\n" {
		t.output.WriteString(output)
	}
}

func (r *report) ended(t *test, action string) {
	switch action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.failures = append(r.failures, t.name)
		fmt.Fprintf(r.out, "%s", t.output.String())
	case "skip":
		r.skipped++
		if r.skipsFile != "" && !slices.ContainsFunc(r.allowed, func(a allowance) bool { return a.covers(t.name, t.output.String()) }) {
			r.refused = append(r.refused, t.name)
			fmt.Fprintf(r.out, "%s", t.output.String())
		}
	}
}

func (r *report) close() error {
	// A panic or a time-out leaves tests without an end; what they said is the reason.
	for _, t := range r.tests {
		if !strings.HasSuffix(t.name, ".") && t.output.Len() > 0 {
			fmt.Fprintf(r.out, "%s\n", t.output.String())
			r.failures = append(r.failures, t.name+" (did not end)")
		}
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	switch {
	case len(r.failures) > 0:
		return fmt.Errorf("failed: %s", strings.Join(r.failures, ", "))
	case len(r.refused) > 0:
		return fmt.Errorf("%s does not allow these skips: %s", r.skipsFile, strings.Join(r.refused, ", "))
	case r.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}
