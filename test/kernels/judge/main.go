// Command judge reads the consoles of the guests that test/kernels/run booted and says whether the tests held.
//
// For each kernel K named on the command line the logs folder holds K.console, what the guest printed, and
// K.status, QEMU's exit status and the seconds it took. Apart from the output of tests, a console has these lines,
// printed by guest-init:
//
//	@@boot RELEASE          the guest is up; RELEASE is uname -r
//	@@start PACKAGE         the package's test binary begins
//	@@exit PACKAGE STATUS   it ended with STATUS
//	@@taint BITS            /proc/sys/kernel/tainted after the tests
//	@@done                  all packages ran
//
// A kernel fails when a test fails, when a test skips that the list of expected skips does not name, when a test on
// that list does not skip, when a package runs no test, when the kernel oopses, and when the guest does not reach
// @@done and power off.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

func main() {
	skipsFile := flag.String("skips", "", "list of expected skips")
	packagesFile := flag.String("packages", "", "list of the packages that were run")
	logs := flag.String("logs", "", "folder of the consoles")
	partial := flag.Bool("partial", false, "only some tests were run: a listed skip need not have been seen")
	flag.Parse()
	if err := judge(os.Stdout, *skipsFile, *packagesFile, *logs, *partial, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

// errFailed says that some kernel failed; the reasons have been printed.
var errFailed = errors.New("the kernel matrix failed")

// judge prints each kernel's problems and the closing table to w.
func judge(w io.Writer, skipsFile, packagesFile, logs string, partial bool, kernels []string) error {
	skipsText, err := os.ReadFile(skipsFile)
	if err != nil {
		return fmt.Errorf("read expected skips: %w", err)
	}
	skips, err := parseSkips(string(skipsText))
	if err != nil {
		return fmt.Errorf("parse %s: %w", skipsFile, err)
	}
	packagesText, err := os.ReadFile(packagesFile)
	if err != nil {
		return fmt.Errorf("read packages: %w", err)
	}
	packages := strings.Fields(string(packagesText))

	var table strings.Builder
	tab := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "KERNEL\tRELEASE\tPASSED\tFAILED\tSKIPPED\tSECONDS\tVERDICT")
	failed := false
	for _, kernel := range kernels {
		console, err := os.ReadFile(filepath.Join(logs, kernel+".console"))
		if err != nil {
			return fmt.Errorf("read console: %w", err)
		}
		var status int
		var seconds float64
		statusText, err := os.ReadFile(filepath.Join(logs, kernel+".status"))
		if err != nil {
			return fmt.Errorf("read QEMU's status: %w", err)
		}
		if _, err := fmt.Sscan(string(statusText), &status, &seconds); err != nil {
			return fmt.Errorf("parse QEMU's status: %w", err)
		}

		g := parseConsole(string(console))
		problems := g.problems(kernel, packages, skips, status, partial)
		verdict := "ok"
		if len(problems) > 0 {
			verdict, failed = "FAILED", true
			fmt.Fprintf(w, "=== kernel %s\n%s\n", kernel, strings.Join(problems, "\n"))
		}
		pass, fail, skip := g.count()
		fmt.Fprintf(tab, "%s\t%s\t%d\t%d\t%d\t%.1f\t%s\n", kernel, g.release, pass, fail, skip, seconds, verdict)
	}
	tab.Flush()
	fmt.Fprintf(w, "\n%s", table.String())
	if failed {
		return errFailed
	}
	return nil
}

// A skip is a line of the list of expected skips. Its kernel may be "*".
type skip struct{ kernel, pkg, test string }

// skipLine takes the first ".Test" for the package's end: a subtest's name may contain another.
var skipLine = regexp.MustCompile(`^(\S+)\s+(\S+?)\.((?:Test|Fuzz|Example)\S*)\s+#\s*\S`)

// parseSkips reads lines of the form "<kernel> <package>.<test>  # reason"; the reason is not optional.
func parseSkips(text string) ([]skip, error) {
	var skips []skip
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		m := skipLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d: %q is not of the form <kernel> <package>.<test>  # reason", i+1, line)
		}
		skips = append(skips, skip{m[1], m[2], m[3]})
	}
	return skips, nil
}

// A guest is what one console told.
type guest struct {
	release  string
	packages map[string]*packageRun
	taint    uint64
	done     bool
	tail     []string // the last lines of all
}

// A packageRun is what one test binary printed.
type packageRun struct {
	results map[string]string   // PASS, FAIL or SKIP by test
	output  map[string][]string // by test; what no test printed is under ""
	order   []string            // tests as they ended
	running []string            // tests that began and did not end
	status  int                 // -1 until the binary ended
}

const (
	// frame precedes each framing line of -test.v=test2json, wherever in a line of output it begins.
	frame = "\x16"
	// tailLines is how much of the console, or of a test's output, a problem shows.
	tailLines = 40
	// taintOops is TAINT_DIE of Documentation/admin-guide/tainted-kernels.rst.
	taintOops = 1 << 7
)

var (
	resultLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
	switchLine = regexp.MustCompile(`^=== (RUN|CONT|NAME|PAUSE)\s*(\S*)`)
)

func parseConsole(text string) guest {
	g := guest{packages: map[string]*packageRun{}}
	var run *packageRun
	var current string
	scanner := bufio.NewScanner(strings.NewReader(text))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		line := strings.TrimRight(scanner.Text(), "\r")
		g.tail = appendTail(g.tail, strings.ReplaceAll(line, frame, ""))
		if marker, ok := strings.CutPrefix(line, "@@"); ok {
			f := append(strings.Fields(marker), "", "", "")
			switch f[0] {
			case "boot":
				g.release = f[1]
			case "start":
				run = &packageRun{results: map[string]string{}, output: map[string][]string{}, status: -1}
				g.packages[f[1]], current = run, ""
			case "exit":
				if run != nil {
					if status, err := strconv.Atoi(f[2]); err == nil {
						run.status = status
					}
				}
				run = nil
			case "taint":
				g.taint, _ = strconv.ParseUint(f[1], 10, 64)
			case "done":
				g.done = true
			}
			continue
		}
		if run != nil {
			current = run.add(line, current)
		}
	}
	return g
}

// add takes a line that the test named current, or the testing package, printed; it returns the test that prints the
// next line.
func (r *packageRun) add(line, current string) string {
	before, framed, ok := strings.Cut(line, frame)
	if before != "" {
		r.output[current] = appendTail(r.output[current], before)
	}
	if !ok {
		return current
	}
	if m := resultLine.FindStringSubmatch(framed); m != nil {
		r.results[m[2]] = m[1]
		r.order = append(r.order, m[2])
		r.running = slices.DeleteFunc(r.running, func(name string) bool { return name == m[2] })
		return m[2]
	}
	if m := switchLine.FindStringSubmatch(framed); m != nil {
		if m[1] == "RUN" {
			r.running = append(r.running, m[2])
		}
		return m[2]
	}
	return current
}

func appendTail(lines []string, line string) []string {
	if len(lines) == tailLines {
		lines = slices.Delete(lines, 0, 1)
	}
	return append(lines, line)
}

func (g guest) count() (pass, fail, skip int) {
	for _, run := range g.packages {
		for _, result := range run.results {
			switch result {
			case "PASS":
				pass++
			case "FAIL":
				fail++
			case "SKIP":
				skip++
			}
		}
	}
	return pass, fail, skip
}

// problems says what is wrong with the guest, in whole lines; none means that the kernel passed. status is QEMU's.
func (g guest) problems(kernel string, packages []string, skips []skip, status int, partial bool) []string {
	var problems []string
	report := func(output []string, format string, args ...any) {
		problems = append(problems, fmt.Sprintf(format, args...))
		for _, line := range output {
			problems = append(problems, "    "+line)
		}
	}

	for _, pkg := range packages {
		run := g.packages[pkg]
		if run == nil {
			report(nil, "%s did not run", pkg)
			continue
		}
		problem := false
		for _, test := range run.order {
			switch run.results[test] {
			case "FAIL":
				report(run.output[test], "%s.%s failed", pkg, test)
				problem = true
			case "SKIP":
				if !listed(skips, kernel, pkg, test) {
					report(run.output[test], "%s.%s skipped, which expected_skips.txt does not allow", pkg, test)
				}
			}
		}
		switch {
		case run.status == -1:
			report(nil, "%s did not end; running: %s", pkg, strings.Join(run.running, " "))
			continue
		case run.status != 0 && len(run.running) > 0: // a panic, or -test.timeout
			last := run.running[len(run.running)-1]
			report(run.output[last], "%s exited with %d; running: %s", pkg, run.status, strings.Join(run.running, " "))
			continue
		case run.status != 0 && !problem:
			report(run.output[""], "%s exited with %d", pkg, run.status)
			continue
		case len(run.results) == 0 && !partial:
			report(run.output[""], "%s ran no test", pkg)
		}
		for _, stale := range staleSkips(skips, kernel, pkg, run.results, partial) {
			report(nil, "%s", stale)
		}
	}

	switch {
	case status == 124 || status == 137: // of timeout(1)
		report(g.tail, "the guest ran out of time; its console ends:")
	case !g.done || status != 0:
		report(g.tail, "the guest did not power off in order (QEMU exited with %d); its console ends:", status)
	}
	if g.taint&taintOops != 0 {
		report(nil, "the kernel oopsed (tainted %d): see the console", g.taint)
	}
	return problems
}

// staleSkips says which lines of expected_skips.txt about a package are no longer true.
func staleSkips(skips []skip, kernel, pkg string, results map[string]string, partial bool) []string {
	var stale []string
	for _, s := range skips {
		if s.pkg != pkg || s.kernel != "*" && s.kernel != kernel {
			continue
		}
		top, _, _ := strings.Cut(s.test, "/")
		switch {
		case results[s.test] == "PASS":
			stale = append(stale, fmt.Sprintf("%s.%s passed: take it off expected_skips.txt for %s", pkg, s.test, s.kernel))
		case results[top] == "" && !partial:
			stale = append(stale, fmt.Sprintf("%s.%s is on expected_skips.txt, but there is no such test", pkg, s.test))
		}
	}
	return stale
}

func listed(skips []skip, kernel, pkg, test string) bool {
	return slices.ContainsFunc(skips, func(s skip) bool {
		return (s.kernel == "*" || s.kernel == kernel) && s.pkg == pkg && s.test == test
	})
}
