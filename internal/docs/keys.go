package docs

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// keysTable is README.md's table of the receiver's own settings, from what
// config.schema.yaml says of them, in its order. Probes have tables of their own.
func keysTable(schemaText []byte) (string, error) {
	var root struct {
		Properties yaml.Node `yaml:"properties"`
	}
	if err := yaml.Unmarshal(schemaText, &root); err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("| key | default | takes | meaning |\n|---|---|---|---|\n")
	err := keyRows(&out, "", &root.Properties)
	return out.String(), err
}

// keyRows writes one row for each property of a node, and for theirs.
func keyRows(out *strings.Builder, path string, properties *yaml.Node) error {
	for i := 0; i+1 < len(properties.Content); i += 2 {
		key := path + properties.Content[i].Value
		if key == "probes" {
			continue
		}
		var property struct {
			Ref         string    `yaml:"$ref"`
			Type        any       `yaml:"type"`
			Description string    `yaml:"description"`
			Default     any       `yaml:"default"`
			Enum        []string  `yaml:"enum"`
			Minimum     *int64    `yaml:"minimum"`
			Maximum     *int64    `yaml:"maximum"`
			Properties  yaml.Node `yaml:"properties"`
		}
		if err := properties.Content[i+1].Decode(&property); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if len(property.Properties.Content) > 0 {
			if err := keyRows(out, key+"::", &property.Properties); err != nil {
				return err
			}
			continue
		}
		takes := fmt.Sprint(property.Type)
		switch {
		case property.Ref != "":
			takes = strings.TrimPrefix(property.Ref, "#/$defs/")
		case property.Enum != nil:
			takes = codes(property.Enum)
		case property.Minimum != nil && property.Maximum != nil:
			takes = fmt.Sprintf("%d to %d", *property.Minimum, *property.Maximum)
		case property.Type == "boolean":
			takes = "true or false"
		case property.Type == "string":
			takes = "text"
		}
		fmt.Fprintf(out, "| `%s` | `%v` | %s | %s |\n", key, property.Default, takes, cell(property.Description))
	}
	return nil
}
