// Package ebpfreceiver is the Collector's receiver of type ebpf: it loads eBPF
// programs into the Linux kernel and turns what the kernel does into OTLP metrics
// and logs.
package ebpfreceiver

//go:generate mdatagen metadata.yaml
