//go:build !linux

package probe

// Env is empty where there is no Linux kernel to observe.
type Env struct{}
