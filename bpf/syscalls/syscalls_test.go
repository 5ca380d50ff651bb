package syscalls

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	list := func(names ...string) []string { return names }
	for name, test := range map[string]struct {
		config Config
		err    string
	}{
		"zero":                   {Config{}, ""},
		"include":                {Config{Include: list("openat", "futex")}, ""},
		"exclude":                {Config{Exclude: list("futex")}, ""},
		"another architecture's": {Config{Include: list("socketcall", "arm_fadvise64_64")}, ""},
		"latency":                {Config{Latency: true}, ""},
		"latency of some":        {Config{Latency: true, Include: list("openat", "read"), LatencySyscalls: list("read")}, ""},
		"both filters": {Config{Include: list("openat"), Exclude: list("futex")},
			"include and exclude contradict each other: set one of them"},
		"unknown include": {Config{Include: list("openat", "opennat")}, `include[1]: "opennat" is not a system call of any table known here`},
		"empty name":      {Config{Exclude: list("")}, `exclude[0]: "" is not a system call of any table known here`},
		"number":          {Config{Exclude: list("syscall_600")}, `exclude[0]: "syscall_600" is not a system call of any table known here`},
		"twice":           {Config{Exclude: list("read", "openat", "read")}, `exclude[2]: "read" is listed twice`},
		"latency off":     {Config{LatencySyscalls: list("read")}, "latency_syscalls: needs latency: true"},
		"unknown latency": {Config{Latency: true, LatencySyscalls: list("reed")}, `latency_syscalls[0]: "reed" is not a system call of any table known here`},
		"not included": {Config{Latency: true, Include: list("openat"), LatencySyscalls: list("read")},
			`latency_syscalls[0]: "read" is not counted: include and exclude leave it out`},
		"excluded": {Config{Latency: true, Exclude: list("read"), LatencySyscalls: list("read")},
			`latency_syscalls[0]: "read" is not counted: include and exclude leave it out`},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.config.Validate()
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.err)
			}
		})
	}
}

func TestNameOf(t *testing.T) {
	require.Equal(t, "syscall_600", nameOf(600, false))
	require.Equal(t, "unknown", nameOf(unknownNumber, false))
	require.Equal(t, "unknown", nameOf(unknownNumber, true))
	require.Equal(t, "fork", nameOf(2, true), "i386 and arm alike")
}
