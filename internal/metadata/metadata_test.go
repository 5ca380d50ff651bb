package metadata

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const good = `type: tcp_connect
display_name: TCP
description: Connections.
default: true
status: {stability: {beta: [metrics, logs]}}
requires:
  kernel: "5.10"
  capabilities:
    - {name: CAP_BPF, why: load programs}
  hooks:
    - {name: tp_btf/inet_sock_set_state, kernel: "5.5", why: connections}
    - {name: iter/tcp, optional: true, why: older sockets}
attributes:
  role: {type: string, enum: [client, server], description: Who began.}
  bytes: {type: int, opt_in: true, description: Bytes.}
metrics:
  linux.tcp.count:
    enabled: true
    description: Connections.
    unit: "{connection}"
    stability: {level: beta}
    sum: {value_type: int, monotonic: true, aggregation_temporality: cumulative}
    attributes: [role]
  linux.tcp.duration:
    description: How long.
    unit: s
    histogram: {value_type: double}
  linux.tcp.open:
    description: Open now.
    unit: "1"
    gauge: {value_type: int}
events:
  tcp.opened:
    enabled: true
    description: One was opened.
    severity: info
    attributes: [role, bytes]
`

func TestParse(t *testing.T) {
	m, err := Parse([]byte(good))
	require.NoError(t, err)
	assert.Equal(t, "tcp_connect", m.Type)
	assert.True(t, m.Default)
	assert.Equal(t, []string{"metrics", "logs"}, m.Status.Stability["beta"])
	assert.Equal(t, Capability{"CAP_BPF", "load programs"}, m.Requires.Capabilities[0])
	assert.Equal(t, Hook{Name: "iter/tcp", Optional: true, Why: "older sockets"}, m.Requires.Hooks[1])
	assert.Equal(t, []string{"client", "server"}, m.Attributes["role"].Enum)
	assert.True(t, m.Attributes["bytes"].OptIn)
	assert.Equal(t, &Sum{"int", true, "cumulative"}, m.Metrics["linux.tcp.count"].Sum)
	assert.NotNil(t, m.Metrics["linux.tcp.duration"].Histogram)
	assert.False(t, m.Metrics["linux.tcp.duration"].Enabled)
	assert.NotNil(t, m.Metrics["linux.tcp.open"].Gauge)
	assert.Equal(t, "info", m.Events["tcp.opened"].Severity)
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"nothing":                  {good, "", "EOF"},
		"not YAML":                 {"type:", "type: [", "metadata.yaml: yaml:"},
		"another shape":            {good, "- a\n- b\n", "metadata.yaml: yaml:"},
		"two documents":            {"type:", "---\nx: 1\n---\ntype:", "metadata.yaml"},
		"a document behind":        {"    attributes: [role, bytes]\n", "    attributes: [role, bytes]\n---\na: 1\n", "more than one document"},
		"an unknown key":           {"display_name:", "displayname:", "field displayname not found"},
		"upper case":               {"type: tcp_connect", "type: TCP", `type: want lower-case letters, digits and underscores, got "TCP"`},
		"no type":                  {"type: tcp_connect", "type:", `got ""`},
		"no description":           {"description: Connections.\ndefault", "default", "description: missing"},
		"no kernel":                {`  kernel: "5.10"` + "\n", "", "requires: kernel and hooks are both needed"},
		"a hook without reason":    {", why: connections", "", "requires.hooks: name and why are both needed"},
		"a capability without why": {"{name: CAP_BPF, why: load programs}", "{name: CAP_BPF}", "requires.capabilities: name and why are both needed"},
		"an undeclared attribute":  {"[role]", "[roll]", `metrics.linux.tcp.count: attribute "roll" is not declared`},
		"an attribute twice":       {"[role, bytes]", "[role, bytes, role]", `events.tcp.opened: attribute "role" is listed twice`},
		"an unused attribute":      {"[role, bytes]", "[role]", "attributes.bytes: declared but not used"},
		"an attribute's type":      {"type: int, opt_in", "type: integer, opt_in", `attributes.bytes: type "integer", want string, int, bool, double or slice`},
		"no kind":                  {"    gauge: {value_type: int}\n", "", "metrics.linux.tcp.open: want exactly one of sum, gauge and histogram, got 0"},
		"two kinds":                {"    gauge: {value_type: int}\n", "    gauge: {value_type: int}\n    histogram: {value_type: double}\n", "got 2"},
		"delta":                    {"aggregation_temporality: cumulative", "aggregation_temporality: delta", `aggregation_temporality "delta", want cumulative`},
		"a value type":             {"gauge: {value_type: int}", "gauge: {value_type: float}", `metrics.linux.tcp.open: value_type "float", want int or double`},
		"no unit":                  {"    unit: s\n", "", "metrics.linux.tcp.duration: description and unit are both needed"},
		"a severity":               {"severity: info", "severity: notice", `events.tcp.opened: severity "notice", want one of trace, debug, info, warn, error, fatal`},
		"an event's description":   {"    description: One was opened.\n", "", "events.tcp.opened: description missing"},
		"one name twice":           {"tcp.opened:", "linux.tcp.open:", "events.linux.tcp.open: a metric has this name, too"},
		"a key twice":              {"default: true", "default: true\ndefault: false", "already defined"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, good, c.old)
			_, err := Parse([]byte(strings.Replace(good, c.old, c.new, 1)))
			require.ErrorContains(t, err, c.want)
			// The same each time, whatever the order of Go's maps.
			for range 5 {
				_, again := Parse([]byte(strings.Replace(good, c.old, c.new, 1)))
				assert.EqualError(t, again, err.Error())
			}
		})
	}
	_, err := Parse([]byte("type: x\ndescription: y\nrequires: {kernel: '1', hooks: [{name: a, why: b}]}\n"))
	assert.EqualError(t, err, `metadata.yaml of "x": neither metrics nor events`)
}

func TestMustParse(t *testing.T) {
	assert.NotPanics(t, func() { MustParse([]byte(good)) })
	assert.Panics(t, func() { MustParse([]byte("type: 5 5")) })
}

// FuzzParse: what is accepted keeps its promises.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	files, err := filepath.Glob("../../bpf/*/metadata.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		if m.Type == "" || m.Description == "" || len(m.Requires.Hooks) == 0 || len(m.Metrics)+len(m.Events) == 0 {
			t.Errorf("accepted %+v", m)
		}
		for name, metric := range m.Metrics {
			for _, a := range metric.Attributes {
				if _, ok := m.Attributes[a]; !ok {
					t.Errorf("%s has undeclared %s", name, a)
				}
			}
		}
	})
}
