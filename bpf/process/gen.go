package process

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -tags linux -type event_header -type process_ids -type exec_event -type exit_event -type fork_event -type oom_event -type event_kind -type exec_flag -type count_kind -cflags "-O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -I../include" bpf process.bpf.c
