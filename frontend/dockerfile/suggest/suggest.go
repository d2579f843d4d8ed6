// Package suggest finds what a user meant to write among the words that are known.
package suggest

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
)

// maxOptions is among how many words one is looked for.
const maxOptions = 1000

// maxDistance is how many letters a word may be away from what it was meant to be.
const maxDistance = 2

// Search returns the option that is nearest to word, the first of equals, or an empty string if
// none is near, word is one of them or there are very many.
func Search(word string, options []string) string {
	best, least := "", maxDistance+1
	if len(options) > maxOptions {
		return ""
	}
	for _, option := range options {
		if option == word {
			return ""
		}
		// The distance is at least the difference in length: most options need no matrix.
		if diff := len(option) - len(word); diff >= least || -diff >= least {
			continue
		}
		if d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(option), nil); d < least {
			best, least = option, d
		}
	}
	return best
}

// Wrap appends the option that is nearest to word to an error.
func Wrap(err error, word string, options []string) error {
	if s := Search(word, options); s != "" {
		return fmt.Errorf("%w (did you mean %s?)", err, s)
	}
	return err
}
