package parser

import "errors"

// Position is a place in a file.
type Position struct {
	// Line counts from 1, Column bytes of the line from 0.
	Line, Column int
}

// Range is a piece of a file, End excluded.
type Range struct {
	Start, End Position
}

// Line returns the range of one line without columns.
func Line(n int) Range {
	return Range{Start: Position{Line: n}, End: Position{Line: n}}
}

// maxLines is up to how many lines Lines names each of them.
const maxLines = 1000

// Lines returns one range without columns for each line that r touches, or a single one if they
// are very many.
func (r Range) Lines() []Range {
	if r.End.Line-r.Start.Line >= maxLines {
		return []Range{{Start: Position{Line: r.Start.Line}, End: Position{Line: r.End.Line}}}
	}
	out := make([]Range, 0, max(r.End.Line-r.Start.Line+1, 0))
	for n := r.Start.Line; n <= r.End.Line; n++ {
		out = append(out, Line(n))
	}
	return out
}

// Error is an error with the place in the file that it speaks of. Errors nest: one that a later
// instruction caused in an earlier one has both places.
type Error struct {
	Err      error
	Location []Range
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without this place.
func (e *Error) Unwrap() error { return e.Err }

// WithLocation adds a place to an error. A nil error stays nil; without a place, err is returned
// as it is.
func WithLocation(err error, location []Range) error {
	if err == nil || len(location) == 0 {
		return err
	}
	return &Error{Err: err, Location: location}
}

// Locate adds a place to an error that has none yet.
func Locate(err error, location []Range) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return WithLocation(err, location)
}

// errorAt places an error: at r itself if it is one line, else at every line of it.
func errorAt(r Range, err error) error {
	if r.Start.Line == r.End.Line {
		return &Error{Err: err, Location: []Range{r}}
	}
	return &Error{Err: err, Location: r.Lines()}
}
