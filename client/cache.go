package client

import (
	"encoding/json"
	"fmt"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// cacheImportsOpt is the frontend option that tells frontends of the cache imports.
const cacheImportsOpt = "cache-imports"

// checkCaches reports caches that lack the attribute that says where they are.
func checkCaches(exports, imports []CacheOption) error {
	if err := requireAttr("exporter", exports, map[string]string{"local": "dest", "registry": "ref"}); err != nil {
		return err
	}
	return requireAttr("importer", imports, map[string]string{"local": "src", "registry": "ref"})
}

func requireAttr(what string, caches []CacheOption, attrs map[string]string) error {
	for _, c := range caches {
		if attr, ok := attrs[c.Type]; ok && c.Attrs[attr] == "" {
			return fmt.Errorf("%s cache %s requires %s", c.Type, what, attr)
		}
	}
	return nil
}

func encodeCaches(caches []CacheOption) []*controlpb.CacheOptionsEntry {
	var out []*controlpb.CacheOptionsEntry
	for _, c := range caches {
		out = append(out, &controlpb.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs})
	}
	return out
}

// cacheImportsAttr returns the value of the frontend option, empty without imports.
func cacheImportsAttr(imports []CacheOption) (string, error) {
	if len(imports) == 0 {
		return "", nil
	}
	dt, err := json.Marshal(imports)
	return string(dt), err
}
