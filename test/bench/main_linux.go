// Command bench measures what the probes cost and prints a table: nanoseconds that
// they add to system calls, executions and context switches, next to programs that
// do nothing on the same hooks and to other tools that do the same job; what a record
// costs from the ring buffer to a consumer; what a collection costs; and memory.
//
// It needs root, and tests nothing: FACTS and budgets are for people to judge, on a
// machine that is otherwise idle. All that it starts ends with it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(serve(role))
	}
	// Children, and the mounts that they see, are this thread's.
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// section is a part of the benchmark that can be chosen by name.
type section struct {
	name string
	// limit is how long it may take at most, give or take one round.
	limit time.Duration
	run   func(*bench) (table, error)
}

func sections() []section {
	return []section{
		{"syscalls", 130 * time.Second, syscallSection},
		{"exec", 85 * time.Second, execSection},
		{"switch", 70 * time.Second, switchSection},
		{"events", 25 * time.Second, eventSection},
		{"collect", 30 * time.Second, collectSection},
		{"memory", 45 * time.Second, memorySection},
	}
}

// quickly is how much shorter everything is with -quick.
const quickly = 8

func run() error {
	quick := flag.Bool("quick", false, "be done within a minute, with more noise")
	only := flag.String("only", "", "run the sections that match: syscalls, exec, switch, events, collect, memory")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("loading BPF programs needs root: sudo go run ./test/bench")
	}
	if err := privateTracefs(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if !slices.ContainsFunc(sections(), func(s section) bool { return pattern.MatchString(s.name) }) {
		return fmt.Errorf("-only: %q matches no section", *only)
	}
	begin := time.Now()
	fmt.Println(facts())
	for _, s := range sections() {
		if !pattern.MatchString(s.name) || ctx.Err() != nil {
			continue
		}
		if err := runSection(ctx, s, *quick); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	fmt.Printf("Done in %s; load %s.\n", time.Since(begin).Round(time.Second), loadAverage())
	return ctx.Err()
}

func runSection(ctx context.Context, s section, quick bool) (err error) {
	fmt.Fprintf(os.Stderr, "bench: %s …\n", s.name)
	b, err := newBench(ctx, s, quick)
	if err != nil {
		return err
	}
	defer b.close()
	result, err := s.run(b)
	if err != nil {
		return err
	}
	fmt.Println(result)
	return nil
}

// privateTracefs gives this thread and its children a mount namespace of their own
// with tracefs in it, which the other tools need; it goes when they have gone.
func privateTracefs() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	const dir = "/sys/kernel/tracing"
	if _, err := os.Stat(dir + "/events"); err == nil {
		return nil
	}
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no tracefs, which other tools need:", err)
	}
	return nil
}
