package progress

import (
	"slices"
	"strings"

	"github.com/tonistiigi/vt100"
)

// minScreenWidth is the least that the emulator is made for, in columns.
const minScreenWidth = 10

// screen is a small terminal that shows the last output of a step as the step meant it: progress
// bars stay on their line, escape sequences do what they say.
type screen struct {
	rows, cols int
	term       *vt100.VT100
}

func newScreen(rows, cols int) *screen {
	s := &screen{rows: max(1, rows), cols: max(minScreenWidth, cols)}
	s.reset()
	return s
}

func (s *screen) reset() { s.term = vt100.NewVT100(s.rows, s.cols) }

// write never fails. Output of builds is hostile and the emulator is not made for that: what
// upsets it starts a new screen.
func (s *screen) write(data []byte) {
	defer func() {
		if recover() != nil {
			s.reset()
		}
	}()
	// The emulator keeps a part of what it is given, and appends to it.
	_, _ = s.term.Write(slices.Clone(data))
}

// lines returns the rows that show something, cut to a width.
func (s *screen) lines(cols int) []string {
	if cols = max(minScreenWidth, cols); cols != s.cols {
		s.cols = cols
		s.resize()
	}
	var out []string
	for _, r := range s.term.Content {
		if text := strings.TrimRight(printable(string(r)), " "); text != "" {
			out = append(out, text)
		}
	}
	return out
}

func (s *screen) resize() {
	defer func() {
		if recover() != nil {
			s.reset()
		}
	}()
	s.term.Resize(s.rows, s.cols)
}
