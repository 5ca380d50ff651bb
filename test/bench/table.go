package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is what a section measured: readable as plain text and valid as Markdown.
type table struct {
	title  string
	header []string
	rows   [][]string
	notes  []string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// String implements fmt.Stringer. The first and the last column hold text.
func (t table) String() string {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	out := &strings.Builder{}
	fmt.Fprintf(out, "## %s\n\n", t.title)
	isText := func(i int) bool { return i == 0 || i == len(t.header)-1 }
	line := func(cells []string) {
		for i, width := range widths {
			cell := ""
			if i < len(cells) {
				cell = cells[i]
			}
			space := strings.Repeat(" ", width-utf8.RuneCountInString(cell))
			if isText(i) {
				fmt.Fprintf(out, "| %s%s ", cell, space)
			} else {
				fmt.Fprintf(out, "| %s%s ", space, cell)
			}
		}
		out.WriteString("|\n")
	}
	line(t.header)
	for i, width := range widths {
		if isText(i) {
			fmt.Fprintf(out, "|%s", strings.Repeat("-", width+2))
		} else {
			fmt.Fprintf(out, "|%s:", strings.Repeat("-", width+1))
		}
	}
	out.WriteString("|\n")
	for _, row := range t.rows {
		line(row)
	}
	for _, note := range t.notes {
		fmt.Fprintf(out, "\n%s\n", note)
	}
	return out.String()
}

// median is the middle of the values, 0 of none. It sorts them.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// verdict compares a measurement with its budget.
func verdict(what string, value, budget float64, unit string) string {
	word := "ok"
	if value > budget {
		word = "over"
	}
	return fmt.Sprintf("%s: %s≤ %s%s", word, what, number(budget), unit)
}

// verdictAtLeast is verdict for what should be large.
func verdictAtLeast(value, budget float64, unit string) string {
	word := "ok"
	if value < budget {
		word = "over"
	}
	return fmt.Sprintf("%s: ≥ %s%s", word, number(budget), unit)
}

// number writes a value with three significant digits or more.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func ratio(v, of float64) string {
	if of <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v/of)
}
