package main

import (
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"

	sessioncontent "github.com/openbuildkit/buildkit/session/content"
)

// parseOCILayouts opens the values of --oci-layout by their ids.
func parseOCILayouts(values []string) (map[string]content.Store, error) {
	stores := make(map[string]content.Store, len(values))
	for _, value := range values {
		id, path, ok := strings.Cut(value, "=")
		if !ok {
			return nil, fmt.Errorf("oci-layout option must be 'id=path/to/layout', instead had invalid %s", value)
		}
		if _, ok := stores[id]; ok {
			return nil, fmt.Errorf("oci store key %q already exists", id)
		}
		store, err := sessioncontent.NewLayout(path)
		if err != nil {
			return nil, fmt.Errorf("oci-layout context at %s failed to initialize: %w", path, err)
		}
		stores[id] = store
	}
	return stores, nil
}
