package config

import (
	"encoding"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
)

// nearest returns the known key most like one that is not known: of the same table if one there
// is a likely misspelling, else one of the same name in another table, else the most similar of
// the table.
func nearest(key []string) string {
	table := reflect.TypeFor[Config]()
	var prefix []string
	for len(key) > 1 {
		next, name := child(table, key[0])
		if next == nil {
			break
		}
		table, prefix, key = next, append(prefix, name), key[1:]
	}
	const likely = 0.6
	best, similarity := closest(table, key[0])
	if similarity < likely {
		last := key[len(key)-1]
		if path := find(reflect.TypeFor[Config](), nil, last); path != nil {
			return dotted(path)
		}
	}
	return dotted(append(prefix, best))
}

// dotted writes a key as TOML has it.
func dotted(key []string) string {
	parts := make([]string, len(key))
	for i, part := range key {
		parts[i] = part
		if !bareKey.MatchString(part) {
			parts[i] = strconv.Quote(part)
		}
	}
	return strings.Join(parts, ".")
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// child returns the type of a table in a table, nil if there is none, and its name.
func child(table reflect.Type, key string) (reflect.Type, string) {
	if table.Kind() == reflect.Map {
		return subtable(table.Elem()), key
	}
	for name, typ := range keys(table) {
		if strings.EqualFold(name, key) {
			return subtable(typ), name
		}
	}
	return nil, ""
}

// subtable returns the table that a value of a type is or holds, nil if it is none.
func subtable(typ reflect.Type) reflect.Type {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return nil
	}
	if typ.Kind() != reflect.Struct && typ.Kind() != reflect.Map {
		return nil
	}
	return typ
}

// keys returns the keys of a struct that is a table, those of embedded structs included.
func keys(table reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	if table.Kind() != reflect.Struct {
		return out
	}
	for _, field := range reflect.VisibleFields(table) {
		if name := field.Tag.Get("toml"); name != "" {
			out[name] = field.Type
		}
	}
	return out
}

// closest returns the key of a table that is most like a name, and how much so from 0 to 1.
func closest(table reflect.Type, name string) (best string, similarity float64) {
	for key := range keys(table) {
		s := levenshtein.Similarity(strings.ToLower(key), strings.ToLower(name), nil)
		if best == "" || s > similarity || s == similarity && key < best {
			best, similarity = key, s
		}
	}
	return best, similarity
}

// find returns the path of a key of that name, the shortest and first one, nil if there is none.
func find(table reflect.Type, prefix []string, name string) []string {
	var best []string
	for key, typ := range keys(table) {
		path := append(append([]string(nil), prefix...), key)
		if !strings.EqualFold(key, name) {
			path = nil
			if sub := subtable(typ); sub != nil && sub.Kind() == reflect.Struct {
				path = find(sub, append(append([]string(nil), prefix...), key), name)
			}
		}
		if path == nil {
			continue
		}
		if best == nil || len(path) < len(best) || len(path) == len(best) && strings.Join(path, ".") < strings.Join(best, ".") {
			best = path
		}
	}
	return best
}
