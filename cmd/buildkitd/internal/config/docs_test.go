package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
)

// The reference shows every key in its example, or names it as `table.key`, and shows none that there
// is not.
func TestTheReferenceIsComplete(t *testing.T) {
	data, err := os.ReadFile("../../../../docs/reference/buildkitd.toml.md")
	require.NoError(t, err)
	page := string(data)
	_, example, ok := strings.Cut(page, "```toml\n")
	require.True(t, ok)
	example, rest, ok := strings.Cut(example, "```")
	require.True(t, ok)

	var shown map[string]any
	require.NoError(t, toml.Unmarshal([]byte(example), &shown))
	documented := map[string]bool{}
	collect(reflect.TypeFor[Config](), nil, shown, documented)
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(rest, -1) {
		documented[strings.ReplaceAll(m[1], `"`, "")] = true
	}
	for _, key := range leaves(reflect.TypeFor[Config](), nil) {
		require.True(t, covered(documented, key), "the reference does not name %s", key)
	}

	file := t.TempDir() + "/example.toml"
	require.NoError(t, os.WriteFile(file, []byte(example), 0o600))
	_, unknown, err := Load(file)
	require.NoError(t, err)
	require.Empty(t, unknown)
}

// leaves returns the dotted paths of all keys that are no tables. That of a table whose keys are the
// user's is *.
func leaves(table reflect.Type, path []string) []string {
	if isFree(table) {
		return []string{strings.Join(path, ".")}
	}
	if table.Kind() == reflect.Map {
		return leaves(subtable(table.Elem()), append(path[:len(path):len(path)], "*"))
	}
	var out []string
	for name, typ := range keys(table) {
		below := append(path[:len(path):len(path)], name)
		if sub := subtable(typ); sub != nil {
			out = append(out, leaves(sub, below)...)
		} else {
			out = append(out, strings.Join(below, "."))
		}
	}
	return out
}

// collect adds the paths of the keys that a table of a file holds to found.
func collect(table reflect.Type, path []string, values map[string]any, found map[string]bool) {
	if isFree(table) {
		found[strings.Join(path, ".")] = true
		return
	}
	for name, value := range values {
		next, _ := child(table, name)
		if table.Kind() == reflect.Map {
			name = "*"
		}
		below := append(path[:len(path):len(path)], name)
		switch v := value.(type) {
		case map[string]any:
			collect(next, below, v, found)
		case []any:
			found[strings.Join(below, ".")] = true
			for _, element := range v {
				if m, ok := element.(map[string]any); ok {
					collect(next, below, m, found)
				}
			}
		default:
			found[strings.Join(below, ".")] = true
		}
	}
}

// isFree tells whether the keys of a table are the user's, and its values no tables.
func isFree(table reflect.Type) bool {
	return table.Kind() == reflect.Map && (subtable(table.Elem()) == nil || subtable(table.Elem()).Kind() != reflect.Struct)
}

// covered tells whether a key is named, or all that begin like it are.
func covered(documented map[string]bool, key string) bool {
	if documented[key] {
		return true
	}
	for i, r := range key {
		if r == '.' && documented[key[:i]+".*"] {
			return true
		}
	}
	return false
}
