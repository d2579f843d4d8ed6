package checksum

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAListIsReadByPath(t *testing.T) {
	var list List
	for _, p := range []string{"a", "a/b", "a/b/c", "a/d", "a-b", "e", "e/f"} {
		list = append(list, Named{Path: p, Entry: Entry{Link: p}})
	}
	tree := newTree(list)
	for p, names := range map[string][]string{
		"": {"a", "a-b", "e"}, "a": {"b", "d"}, "a/b": {"c"}, "a/b/c": nil, "a-b": nil, "e": {"f"}, "none": nil, "a/bb": nil,
	} {
		require.Equal(t, names, tree.names(p), p)
	}
	for _, n := range list {
		e, ok := tree.stat(n.Path)
		require.True(t, ok)
		require.Equal(t, n.Path, e.Link)
	}
	for _, p := range []string{"a/c", "a/b/c/d", "z", "a-"} {
		_, ok := tree.stat(p)
		require.False(t, ok, p)
	}
	tree.setContent("a/d", Sum{1})
	e, _ := tree.stat("a/d")
	require.True(t, e.Hashed)
	require.False(t, list[3].Hashed, "the list that was given is never changed")
}
