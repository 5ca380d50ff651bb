// Package e2e tests the built Collector as users run it: as a process, with configuration files, signals, missing
// privileges and a second Collector. `make e2e` builds the Collector and names it in OTELCOL_EBPF_BINARY; without that
// variable every test skips.
package e2e
