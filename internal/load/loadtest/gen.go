// Package loadtest is what the tests of internal/load load: programs that tell which
// settings reached them, and one that the verifier refuses.
package loadtest

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I../../../bpf/include" bpf loadtest.bpf.c
