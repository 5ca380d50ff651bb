package syscalls

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -tags linux -type abi -type syscall_number -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I../include" bpf syscalls.bpf.c
