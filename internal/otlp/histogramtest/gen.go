// Package histogramtest runs the C code of bpf/include/histogram.h in the kernel,
// for tests: one value per run of a socket filter, which BPF_PROG_TEST_RUN
// repeats, so that no loop is needed and every kernel's verifier takes it.
package histogramtest

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -I../../../bpf/include" bpf histogramtest.bpf.c
