package main

import (
	"fmt"
	"os"
	"strings"

	csvvalue "github.com/tonistiigi/go-csvvalue"

	"github.com/openbuildkit/buildkit/session/secrets"
)

// parseSecrets reads the values of --secret.
func parseSecrets(values []string) (*secrets.Store, error) {
	var sources []secrets.Source
	for _, value := range values {
		src, err := parseSecret(value)
		if err != nil {
			return nil, err
		}
		sources = append(sources, src)
	}
	return secrets.NewStore(sources)
}

func parseSecret(value string) (secrets.Source, error) {
	var src secrets.Source
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return src, fmt.Errorf("failed to parse csv secret: %w", err)
	}
	kind := ""
	for _, field := range fields {
		key, v, ok := strings.Cut(field, "=")
		key = strings.ToLower(key)
		if !ok {
			return src, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch key {
		case "type":
			if v != "file" && v != "env" {
				return src, fmt.Errorf("unsupported secret type %q", v)
			}
			kind = v
		case "id":
			src.ID = v
		case "source", "src":
			src.FilePath = v
		case "env":
			src.Env = v
		default:
			return src, fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if kind == "env" && src.Env == "" {
		src.Env, src.FilePath = src.FilePath, ""
	}
	if src.FilePath != "" {
		if _, err := os.Stat(src.FilePath); err != nil {
			return src, fmt.Errorf("failed to stat %s: %w", src.FilePath, err)
		}
	}
	return src, nil
}
