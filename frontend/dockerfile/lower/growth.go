package lower

import (
	"fmt"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/shell"
)

// maxGrowth is what the instructions of a build may grow to, in bytes and about. Values that hold
// one another twice, arguments that every step repeats and triggers that every stage runs make much
// of a short file; what is refused here could not be sent to anybody, either.
const maxGrowth = 128 << 20

// errTooLarge is what a build ends with that has grown too much.
var errTooLarge = fmt.Errorf("the build is too large: with their variables, its instructions take more than %d MiB", maxGrowth>>20)

// grow notes that the build takes n bytes more.
func (b *Build) grow(n int) error {
	if b.grown += n; b.grown > maxGrowth {
		return errTooLarge
	}
	return nil
}

// expandWith expands text and counts what becomes of it.
func (b *Build) expandWith(lex shell.Lexer, text string, env shell.Env) (shell.Result, error) {
	r, err := lex.Expand(text, env)
	if err == nil {
		err = b.grow(len(r.Text))
	}
	return r, err
}
