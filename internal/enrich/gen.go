package enrich

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -target bpfel -type cgroup_event -type cgroup_event_kind -cflags "-O2 -g -Wall -Werror -I../../bpf/include" cgroup cgroup.bpf.c
