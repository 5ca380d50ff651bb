package docs

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/probe"
)

// described is a probe with everything that documentation says about it.
type described struct {
	metadata.Metadata
	settings []setting
}

func newDescribed(t probe.Type, settings []setting) described {
	return described{t.Metadata, settings}
}

// page is the probe's documentation.md.
func (d *described) page() []byte {
	var out bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&out, format, args...) }
	p("[comment]: <> (Generated from metadata.yaml and the comments of Config. DO NOT EDIT, run make generate.)\n\n")
	p("# %s: `%s`\n\n%s\n\n", d.DisplayName, d.Type, d.Description)
	if d.Default {
		p("It is in the default set: it runs when `probes:` is left out.")
	} else {
		p("It runs when it stands under `probes:`.")
	}
	p(" Stability: %s.\n", d.stability())
	d.metricsSection(p)
	d.eventsSection(p)
	d.attributesSection(p)
	d.settingsSection(p)
	d.requiresSection(p)
	return out.Bytes()
}

type printf func(format string, args ...any)

// otherNames are the names that the conventions give the metric in some scope.
func otherNames(m metadata.Metric) string {
	var text strings.Builder
	for _, scope := range sortedKeys(m.ScopeNames) {
		fmt.Fprintf(&text, "<br>`%s` with `scope: %s`", m.ScopeNames[scope], scope)
	}
	return text.String()
}

func (d *described) metricsSection(p printf) {
	if len(d.Metrics) == 0 {
		return
	}
	p("\n## Metrics\n\n")
	p("| metric | what it counts or measures | unit | type | attributes | stability | enabled by default |\n|---|---|---|---|---|---|---|\n")
	for _, name := range sortedKeys(d.Metrics) {
		m := d.Metrics[name]
		p("| `%s`%s | %s | %s | %s | %s | %s | %s |\n", name, otherNames(m), cell(m.Description), cell(m.Unit), kindOf(m),
			codes(m.Attributes), m.Stability.Level, yesNo(m.Enabled))
	}
	p("\nSums are cumulative. A histogram leaves as an exponential one, or as an explicit one with `histogram: explicit`.\n")
}

func (d *described) eventsSection(p printf) {
	if len(d.Events) == 0 {
		return
	}
	p("\n## Events\n\nLog records, by their event name.\n\n")
	p("| event | when | severity | stability | enabled by default |\n|---|---|---|---|---|\n")
	for _, name := range sortedKeys(d.Events) {
		e := d.Events[name]
		p("| `%s` | %s | %s | %s | %s |\n", name, cell(e.Description), e.Severity, e.Stability.Level, yesNo(e.Enabled))
	}
	for _, name := range sortedKeys(d.Events) {
		p("\nAttributes of `%s`: %s.\n", name, codes(slices.Sorted(slices.Values(d.Events[name].Attributes))))
	}
}

func (d *described) attributesSection(p printf) {
	if len(d.Attributes) == 0 {
		return
	}
	p("\n## Attributes\n\n| attribute | type | meaning | values | opt-in |\n|---|---|---|---|---|\n")
	for _, name := range sortedKeys(d.Attributes) {
		a := d.Attributes[name]
		values := codes(a.Enum)
		kind := a.Type
		if kind == "slice" {
			kind = "list of strings"
		}
		p("| `%s` | %s | %s | %s | %s |\n", name, kind, cell(a.Description), values, yesNo(a.OptIn))
	}
	p("\nAn attribute that does not apply, or that could not be read, is absent.\n")
}

func (d *described) settingsSection(p printf) {
	p("\n## Settings\n\n")
	if len(d.settings) > 0 {
		p("Below `probes::%s`:\n\n| key | default | takes | meaning |\n|---|---|---|---|\n", d.Type)
		for _, s := range d.settings {
			p("| `%s` | `%s` | %s | %s |\n", s.Key, s.defaultText(), s.typeText(), cell(s.Description))
		}
		p("\n")
	}
	switch {
	case len(d.Events) == 0:
		p("Each metric can be switched: `metrics: {NAME: {enabled: false}}`.\n")
	case len(d.Metrics) == 0:
		p("Each event can be switched: `events: {NAME: {enabled: false}}`.\n")
	default:
		p("Each metric and event can be switched: `metrics: {NAME: {enabled: false}}`, `events: {NAME: {enabled: false}}`.\n")
	}
}

func (d *described) requiresSection(p printf) {
	p("\n## What it needs\n\nLinux %s or later, with BTF.\n\n", d.Requires.Kernel)
	p("| hook | since | needed | why |\n|---|---|---|---|\n")
	for _, h := range d.Requires.Hooks {
		needed := "yes"
		if h.Optional {
			needed = "no"
		}
		p("| `%s` | %s | %s | %s |\n", h.Name, h.Kernel, needed, cell(h.Why))
	}
	p("\n| capability | why |\n|---|---|\n")
	for _, c := range d.Requires.Capabilities {
		p("| `%s` | %s |\n", c.Name, cell(c.Why))
	}
}

func (d *described) stability() string {
	var parts []string
	for _, level := range sortedKeys(d.Status.Stability) {
		parts = append(parts, level+" ("+strings.Join(d.Status.Stability[level], ", ")+")")
	}
	return strings.Join(parts, ", ")
}

// probesTable is bpf/README.md's.
func probesTable(types []described) string {
	var out strings.Builder
	out.WriteString("| probe | what it sees | by default | metrics | events | hooks |\n|---|---|---|---|---|---|\n")
	for i := range types {
		d := &types[i]
		hooks := make([]string, len(d.Requires.Hooks))
		for j, h := range d.Requires.Hooks {
			hooks[j] = h.Name
		}
		fmt.Fprintf(&out, "| [%s](%s/documentation.md) | %s | %s | %d | %d | %s |\n", d.Type, Folder(d.Type),
			cell(d.Description), yesNo(d.Default), len(d.Metrics), len(d.Events), codes(hooks))
	}
	return out.String()
}

// signalsTable is README.md's: every metric and event of every probe.
func signalsTable(types []described) string {
	var out strings.Builder
	out.WriteString("| probe | signal | kind | unit | what |\n|---|---|---|---|---|\n")
	for i := range types {
		d := &types[i]
		link := fmt.Sprintf("[%s](bpf/%s/documentation.md)", d.Type, Folder(d.Type))
		for _, name := range sortedKeys(d.Metrics) {
			m := d.Metrics[name]
			fmt.Fprintf(&out, "| %s | `%s` | %s | %s | %s%s |\n", link, name, kindOf(m), cell(m.Unit), cell(m.Description), off(m.Enabled))
		}
		for _, name := range sortedKeys(d.Events) {
			e := d.Events[name]
			fmt.Fprintf(&out, "| %s | `%s` | log event, %s | | %s%s |\n", link, name, e.Severity, cell(e.Description), off(e.Enabled))
		}
	}
	return out.String()
}

func off(enabled bool) string {
	if enabled {
		return ""
	}
	return " Off by default."
}

// privilegesTable is README.md's: which capability which probe needs, and why.
func privilegesTable(types []described) string {
	type row struct{ name, why string }
	probes := map[row][]string{}
	for i := range types {
		for _, c := range types[i].Requires.Capabilities {
			key := row{c.Name, c.Why}
			probes[key] = append(probes[key], types[i].Type)
		}
	}
	rows := slices.SortedFunc(maps.Keys(probes), func(a, b row) int {
		return strings.Compare(a.name+a.why, b.name+b.why)
	})
	var out strings.Builder
	out.WriteString("| capability | why | probes |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", r.name, cell(r.why), strings.Join(probes[r], ", "))
	}
	return out.String()
}

func kindOf(m metadata.Metric) string {
	switch {
	case m.Histogram != nil:
		return "histogram"
	case m.Gauge != nil:
		return "gauge"
	case m.Sum.Monotonic:
		return "monotonic sum"
	}
	return "sum"
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

// cell is text that cannot end a table's cell.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

func codes(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "`" + strings.Join(names, "`, `") + "`"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
