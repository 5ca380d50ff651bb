package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"otelcol-ebpf/internal/enrich"
)

// memoryBudget is FACTS.md's, in MB (2^20 bytes).
const memoryBudget = 80

const megabyte = 1 << 20

// memorySection measures what the receiver's process and the kernel keep.
func memorySection(b *bench) (table, error) {
	t := table{
		title:  "Memory: MB (2^20 bytes)",
		header: []string{"state", "resident", "the receiver's share", "kernel: maps", "points", "resources", "budget"},
	}
	time.Sleep(500 * time.Millisecond)
	bare := residentMemory(b.receiver.pid())
	t.row("the process before the engine starts", number(bare/megabyte), "", "", "", "", "")
	conf := map[string]any{"collection_interval": "1s"}
	if _, err := b.receiver.call(request{Do: "start", Conf: conf}); err != nil {
		return table{}, err
	}
	state := func(name string) error {
		time.Sleep(pick(b, 5*time.Second, 2*time.Second))
		v, err := b.receiver.call(request{Do: "observe"})
		if err != nil {
			return err
		}
		share := residentMemory(b.receiver.pid()) - bare
		t.row(name, number((bare+share)/megabyte), number(share/megabyte), number(float64(mapMemory(b.receiver.pid()))/megabyte),
			fmt.Sprint(v["points"]), fmt.Sprint(v["resources"]), verdict("share ", share/megabyte, memoryBudget, " MB"))
		return nil
	}
	if err := state("default configuration"); err != nil {
		return table{}, err
	}
	n := pick(b, 2000, 200)
	if err := b.containers(n); err != nil {
		return table{}, err
	}
	if err := state(fmt.Sprintf("after a process ran in each of %d containers", n)); err != nil {
		return table{}, err
	}
	if _, err := b.receiver.call(request{Do: "stop"}); err != nil {
		return table{}, err
	}
	t.note("Default configuration but for a collection every second; the consumers count and throw away. In each container a process makes eight " +
		"further system calls and executes another; kernel memory of maps is what the kernel says of each (memlock in fdinfo).")
	return t, nil
}

// containers makes cgroups as Docker does and moves a process through them, which
// leaves series of all probes.
func (b *bench) containers(n int) (err error) {
	_, mount, err := enrich.DetectSource("/")
	if err != nil {
		return err
	}
	own, err := newChild(roleWorker)
	if err != nil {
		return err
	}
	root := filepath.Join(mount, fmt.Sprintf("otelcol-ebpf-bench-%d", os.Getpid()))
	var made []string
	defer func() {
		own.close()
		var errs []error
		for i := len(made) - 1; i >= 0; i-- {
			errs = append(errs, removeGroup(made[i]))
		}
		err = errors.Join(append(errs, err)...)
	}()
	mkdir := func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		made = append(made, path)
		return nil
	}
	if err := errors.Join(mkdir(root), mkdir(filepath.Join(root, "docker"))); err != nil {
		return err
	}
	for i := range n {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(root, "docker", fmt.Sprintf("%x", sha256.Sum256([]byte(strconv.Itoa(i)))))
		if err := mkdir(path); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(own.pid())), 0o644); err != nil {
			return err
		}
		for _, r := range []request{{Do: "strange", Count: 8}, {Do: "exec", Count: 1}} {
			r.CPU = b.cpu
			if _, err := own.call(r); err != nil {
				return err
			}
		}
	}
	// The receiver has a look while they exist.
	time.Sleep(1500 * time.Millisecond)
	return nil
}

// removeGroup removes a cgroup, which may hold a dying process for a moment.
func removeGroup(path string) error {
	var err error
	for range 100 {
		if err = unix.Rmdir(path); err == nil || os.IsNotExist(err) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
