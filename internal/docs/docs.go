// Package docs writes the documentation that lists things from what declares
// them: the probes' metadata.yaml and the comments on their settings. Package bpf's
// tests run it, to check or to rewrite the files.
package docs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"otelcol-ebpf/internal/probe"
)

// Files returns the content that every file with generated text should have, by
// its path below root, the folder of go.mod. Files that people write too have
// their generated parts between markers, and must exist.
func Files(root string, types []probe.Type) (map[string][]byte, error) {
	described := make([]described, len(types))
	files := map[string][]byte{}
	for i, t := range types {
		settings, err := settingsOf(root, t)
		if err != nil {
			return nil, fmt.Errorf("settings of %s: %w", t.Metadata.Type, err)
		}
		described[i] = newDescribed(t, settings)
		files[filepath.Join("bpf", Folder(t.Metadata.Type), "documentation.md")] = described[i].page()
	}
	schema, err := probesSchema(described)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, "config", "config.schema.yaml"))
	if err != nil {
		return nil, err
	}
	keys, err := keysTable(text)
	if err != nil {
		return nil, fmt.Errorf("config.schema.yaml: %w", err)
	}
	for _, part := range []struct {
		path, name, text string
		style            markers
	}{
		{"bpf/README.md", "probes", probesTable(described), markdown()},
		{"README.md", "signals", signalsTable(described), markdown()},
		{"README.md", "configuration", keys, markdown()},
		{"README.md", "privileges", privilegesTable(described), markdown()},
		{"config/config.schema.yaml", "probes", schema, yamlComment()},
	} {
		text, ok := files[part.path]
		if !ok {
			if text, err = os.ReadFile(filepath.Join(root, part.path)); err != nil {
				return nil, err
			}
		}
		if files[part.path], err = part.style.replace(text, part.name, part.text); err != nil {
			return nil, fmt.Errorf("%s: %w", part.path, err)
		}
	}
	return files, nil
}

// Folder is the folder of a probe below bpf: Go's package names have no underscores.
func Folder(probeType string) string {
	return strings.ReplaceAll(probeType, "_", "")
}

// markers stand around generated text; both have a %s for its name.
type markers struct{ begin, end string }

func markdown() markers {
	return markers{"<!-- begin generated %s: DO NOT EDIT, run make generate -->\n", "<!-- end generated %s -->"}
}

func yamlComment() markers {
	return markers{"# begin generated %s: DO NOT EDIT, run make generate\n", "# end generated %s"}
}

// replace puts generated between the markers of that name, which stay.
func (m markers) replace(text []byte, name, generated string) ([]byte, error) {
	begin, end := fmt.Sprintf(m.begin, name), fmt.Sprintf(m.end, name)
	before, rest, found := bytes.Cut(text, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		return nil, fmt.Errorf("markers %q and %q: not found in this order", strings.TrimSpace(begin), end)
	}
	// The end marker keeps its indentation.
	indent := rest[bytes.LastIndexByte(rest[:len(rest)-len(after)-len(end)], '\n')+1 : len(rest)-len(after)-len(end)]
	return bytes.Join([][]byte{before, []byte(begin), []byte(generated), indent, []byte(end), after}, nil), nil
}
