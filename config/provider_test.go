package config

import (
	"context"

	"go.opentelemetry.io/collector/confmap"
)

// provider makes a source of configuration that always says the same.
func provider(scheme, text string) confmap.ProviderFactory {
	return confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider {
		return fixed{scheme, text}
	})
}

type fixed struct{ scheme, text string }

func (p fixed) Retrieve(context.Context, string, confmap.WatcherFunc) (*confmap.Retrieved, error) {
	return confmap.NewRetrievedFromYAML([]byte(p.text))
}

func (p fixed) Scheme() string               { return p.scheme }
func (fixed) Shutdown(context.Context) error { return nil }
