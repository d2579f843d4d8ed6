package image

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
)

func newCache(t *testing.T) *cache.Manager {
	t.Helper()
	m, err := cache.Open(t.Context(), cache.Config{Root: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}
