package scheduler

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -tags linux -type off_cpu_reason -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I../include" bpf scheduler.bpf.c
