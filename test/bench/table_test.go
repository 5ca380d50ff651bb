package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	tab := table{title: "Calls", header: []string{"what", "ns", "budget"}}
	tab.row("empty", "82.0", "")
	tab.row("×", "1234", verdict("wall ", 1234, 500, " ns"))
	tab.row("short")
	tab.note("%d rounds", 3)
	require.Equal(t, `## Calls

| what  |   ns | budget              |
|-------|-----:|---------------------|
| empty | 82.0 |                     |
| ×     | 1234 | over: wall ≤ 500 ns |
| short |      |                     |

3 rounds
`, tab.String())
}

func TestMedian(t *testing.T) {
	require.Zero(t, median(nil))
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
}
