package gateway

import (
	"errors"
	"maps"
	"slices"
)

var errMultipleRefs = errors.New("result has one reference per platform")

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
