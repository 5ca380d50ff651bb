package docs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"otelcol-ebpf/internal/metadata"
	"otelcol-ebpf/internal/probe"
)

// exampleConfig has bounds that its Validate knows.
type exampleConfig struct {
	// Ratio is between 3
	// and 70.
	Ratio uint32 `mapstructure:"ratio"`
	// Depth is at least -2.
	Depth int `mapstructure:"depth"`
	// Wait has a unit.
	Wait time.Duration `mapstructure:"wait"`
	// Names are some.
	Names []string `mapstructure:"names"`
	// Text is text.
	Text string `mapstructure:"text"`
	// On switches it.
	On bool `mapstructure:"on"`
}

func (c *exampleConfig) Validate() error {
	if c.Ratio < 3 || c.Ratio > 70 || c.Depth < -2 {
		return errors.New("out of range")
	}
	return nil
}

func example(config func() probe.Config) probe.Type {
	return probe.Type{
		Metadata: metadata.Metadata{
			Type: "an_example", DisplayName: "Example", Description: "An example.",
			Requires: metadata.Requires{
				Kernel: "5.10", Capabilities: []metadata.Capability{{Name: "CAP_BPF", Why: "a|b"}},
				Hooks: []metadata.Hook{{Name: "tp_btf/x", Kernel: "5.5", Why: "x"}, {Name: "iter/y", Optional: true}},
			},
			Attributes: map[string]metadata.Attribute{"b": {Type: "slice", OptIn: true}, "a": {Type: "string", Enum: []string{"x", "y"}}},
			Metrics: map[string]metadata.Metric{
				"linux.b": {Unit: "s", Histogram: &metadata.Histogram{}, Description: "Seconds.", Attributes: []string{"a"}},
				"linux.a": {Unit: "1", Gauge: &metadata.Gauge{}, Enabled: true},
				"linux.c": {Unit: "1", Sum: &metadata.Sum{}},
			},
			Events: map[string]metadata.Event{"bang": {Severity: "warn", Attributes: []string{"b", "a"}}},
		},
		NewConfig: config,
	}
}

// folder is a repository with the files that Files wants; the example's source is
// this very file.
func folder(t *testing.T) string {
	root := t.TempDir()
	source, err := os.ReadFile("docs_test.go")
	require.NoError(t, err)
	for path, text := range map[string]string{
		"bpf/anexample/example.go":  string(source),
		"bpf/README.md":             "x\n<!-- begin generated probes: DO NOT EDIT, run make generate -->\nold\n<!-- end generated probes -->\ny\n",
		"README.md":                 "<!-- begin generated signals: DO NOT EDIT, run make generate -->\n<!-- end generated signals -->\n<!-- begin generated privileges: DO NOT EDIT, run make generate -->\n<!-- end generated privileges -->\n<!-- begin generated configuration: DO NOT EDIT, run make generate -->\n<!-- end generated configuration -->\n",
		"config/config.schema.yaml": "properties:\n  b: {type: string, enum: [x, y], default: x, description: B.}\n  a: {type: object, properties: {n: {type: integer, minimum: 0, maximum: 9, default: 0}, d: {$ref: '#/$defs/duration', default: 5s}}}\n  f: {type: boolean, default: false}\n  t: {type: string, default: /}\nprobes:\n  # begin generated probes: DO NOT EDIT, run make generate\n  # end generated probes\n",
	} {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return root
}

func newExample() probe.Config {
	return &exampleConfig{Ratio: 10, Wait: 2 * time.Second, Names: []string{"a", "b"}}
}

func TestFiles(t *testing.T) {
	root := folder(t)
	types := []probe.Type{example(newExample)}
	files, err := Files(root, types)
	require.NoError(t, err)
	assert.Len(t, files, 4)

	page := string(files["bpf/anexample/documentation.md"])
	for _, want := range []string{
		"# Example: `an_example`\n",
		"It runs when it stands under `probes:`.",
		"| `linux.a` |  | 1 | gauge |  |  | yes |\n| `linux.b` | Seconds. | s | histogram | `a` |  | no |\n| `linux.c` |  | 1 | sum |",
		"Attributes of `bang`: `a`, `b`.",
		"| `b` | list of strings |  |  | yes |",
		"| `a` | string |  | `x`, `y` | no |",
		"| `ratio` | `10` | 3 to 70 | `ratio` is between 3 and 70. |\n| `depth` | `0` | whole number |",
		"| `wait` | `2s` | duration |",
		"| `names` | `[a, b]` | list |",
		"| `text` | `\"\"` | text |",
		"| `on` | `false` | true or false |",
		"| `iter/y` |  | no |  |",
		`| a\|b |`,
	} {
		assert.Contains(t, page, want)
	}
	assert.Contains(t, string(files["README.md"]), "| `bang` | log event, warn | |  Off by default. |")
	assert.Contains(t, string(files["README.md"]), "|---|---|---|---|\n| `b` | `x` | `x`, `y` | B. |\n"+
		"| `a::n` | `0` | 0 to 9 |  |\n| `a::d` | `5s` | duration |  |\n| `f` | `false` | true or false |  |\n| `t` | `/` | text |  |\n<!--")
	readme := string(files["bpf/README.md"])
	assert.Contains(t, readme, "x\n<!-- begin")
	assert.Contains(t, readme, "-->\ny\n")
	assert.NotContains(t, readme, "old")
	schema := string(files["config/config.schema.yaml"])
	assert.Contains(t, schema, "            minimum: 3\n            maximum: 70\n")
	assert.Contains(t, schema, "            minimum: -2\n")
	assert.Contains(t, schema, "\n  # end generated probes\n")

	// What was written stays as it is.
	for path, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(root, path), text, 0o600))
	}
	again, err := Files(root, types)
	require.NoError(t, err)
	assert.Equal(t, files, again)
}

type untagged struct {
	// Field is here.
	Field int
}

func (*untagged) Validate() error { return nil }

type uncommented struct {
	Field int `mapstructure:"field"`
}

func (*uncommented) Validate() error { return nil }

type strange struct {
	// Field is a channel.
	Field chan int `mapstructure:"field"`
}

func (*strange) Validate() error { return nil }

func TestWhatCannotBeDocumented(t *testing.T) {
	for want, config := range map[string]func() probe.Config{
		"field Field has no mapstructure tag":                  func() probe.Config { return &untagged{} },
		"field Field has no comment that begins with its name": func() probe.Config { return &uncommented{} },
		"schema of an_example: field: type chan int: teach":    func() probe.Config { return &strange{} },
	} {
		_, err := Files(folder(t), []probe.Type{example(config)})
		assert.ErrorContains(t, err, want)
	}
	root := folder(t)
	require.NoError(t, os.WriteFile(filepath.Join(root, "README.md"), []byte("<!-- begin generated signals: DO NOT EDIT, run make generate -->\n"), 0o600))
	_, err := Files(root, []probe.Type{example(newExample)})
	assert.ErrorContains(t, err, "README.md: markers")
	require.NoError(t, os.Remove(filepath.Join(root, "bpf/README.md")))
	_, err = Files(root, []probe.Type{example(newExample)})
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestFolder(t *testing.T) {
	assert.Equal(t, "tcpconnect", Folder("tcp_connect"))
	assert.Equal(t, "process", Folder("process"))
}
