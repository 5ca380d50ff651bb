package ebpfreceiver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"

	"otelcol-ebpf/config"
)

// TestExamples loads and validates every configuration of this receiver that users
// and the end-to-end tests start from.
func TestExamples(t *testing.T) {
	if os.Getenv("OTELCOL_EBPF_KERNEL_MATRIX") == "1" {
		t.Skip("a guest does not have the repository's other folders")
	}
	for pattern, atLeast := range map[string]int{
		"../../config/examples/*.yaml":    5,
		"../../testdata/pipelines/*.yaml": 2,
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, file := range files {
			found += checkExample(t, file)
		}
		if found < atLeast {
			t.Errorf("%s has %d configurations of the receiver, want at least %d", pattern, found, atLeast)
		}
	}
}

// checkExample returns how many configurations of the receiver there are.
func checkExample(t *testing.T, file string) (found int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var collector struct {
		Receivers map[string]map[string]any
		Service   struct {
			Pipelines map[string]struct{ Receivers []string }
		}
	}
	if err := yaml.Unmarshal(text, &collector); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for id, values := range collector.Receivers {
		if name, _, _ := strings.Cut(id, "/"); name != "ebpf" {
			continue
		}
		found++
		c := NewFactory().CreateDefaultConfig().(*config.Config)
		if err := confmap.NewFromStringMap(values).Unmarshal(c); err != nil {
			t.Errorf("%s: %s: %v", file, id, err)
			continue
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %s: %v", file, id, err)
		}
		used := false
		for _, p := range collector.Service.Pipelines {
			for _, r := range p.Receivers {
				used = used || r == id
			}
		}
		if !used {
			t.Errorf("%s: %s is in no pipeline", file, id)
		}
	}
	return found
}
