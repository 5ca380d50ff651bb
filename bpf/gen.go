package bpf

// Documentation that lists probes, signals, settings and privileges; the test that
// checks it rewrites it, too.
//go:generate go test -count 1 -run ^TestDocumentation$ . -update
