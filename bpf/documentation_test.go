package bpf_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"otelcol-ebpf/bpf"
	"otelcol-ebpf/internal/docs"
)

var update = flag.Bool("update", false, "rewrite generated documentation instead of checking it")

// TestDocumentation fails when documentation does not say what metadata.yaml and
// the settings' comments say.
func TestDocumentation(t *testing.T) {
	const root = ".."
	files, err := docs.Files(root, bpf.All())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		path = filepath.Join(root, path)
		got, err := os.ReadFile(path)
		switch {
		case err == nil && bytes.Equal(got, want):
		case !*update:
			t.Errorf("%s is out of date: run make generate", filepath.Clean(path))
		default:
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
