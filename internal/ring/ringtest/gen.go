// Package ringtest is a program that sends as many events through a ring buffer
// as a test asks for, by bpf/include/event.h like any probe.
package ringtest

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -Wall -Werror -I../../../bpf/include" bpf ringtest.bpf.c
