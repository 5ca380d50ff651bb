// Package empty holds the BPF programs that test/bench compares the probes with.
package empty

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -tags linux -type event_header -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I../../../bpf/include" Bpf empty.bpf.c
