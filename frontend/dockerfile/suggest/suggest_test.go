package suggest_test

import (
	"testing"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/suggest"
)

func TestSearch(t *testing.T) {
	for _, tc := range []struct {
		name, word, want string
		options          []string
	}{
		{"two letters swapped", "chwon", "chown", []string{"link", "chown", "chmod"}},
		{"the first of equally near ones", "1", "P", []string{"PATH", "P", "A"}},
		{"case does not count", "CHOWN", "chown", []string{"chown"}},
		{"nothing near", "nope", "", []string{"base", "test", "release"}},
		{"the word itself", "base", "", []string{"bass", "base"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := suggest.Search(tc.word, tc.options); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
