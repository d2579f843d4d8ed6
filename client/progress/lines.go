package progress

import (
	"bytes"
	"fmt"
	"time"
)

// maxLine bounds a line that does not end, in bytes. What is longer is shown in pieces.
const maxLine = 64 << 10

// line is a line of output without its end.
type line struct {
	// at is the time since its vertex started.
	at   time.Duration
	text []byte
}

// stamp formats a time since a start with as many decimals as are of interest.
func stamp(d time.Duration) string {
	s := d.Seconds()
	switch {
	case s < 10:
		return fmt.Sprintf("%.3f", s)
	case s < 100:
		return fmt.Sprintf("%.2f", s)
	}
	return fmt.Sprintf("%.1f", s)
}

// splitter cuts the output of the streams of a vertex into lines. A line may arrive in pieces; its
// time is that of the first one.
type splitter struct {
	partial map[int]*line
	streams []int
}

func (s *splitter) write(stream int, at time.Duration, data []byte, emit func(line)) {
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		rest := data
		if i >= 0 {
			rest = data[:i]
		}
		l := s.partial[stream]
		if l == nil {
			l = &line{at: at}
			if s.partial == nil {
				s.partial = map[int]*line{}
			}
			s.partial[stream] = l
			s.streams = append(s.streams, stream)
		}
		l.text = append(l.text, rest...)
		if i < 0 {
			if len(l.text) >= maxLine {
				s.end(stream, emit)
			}
			return
		}
		s.end(stream, emit)
		data = data[i+1:]
	}
}

func (s *splitter) end(stream int, emit func(line)) {
	l := s.partial[stream]
	delete(s.partial, stream)
	for i, other := range s.streams {
		if other == stream {
			s.streams = append(s.streams[:i], s.streams[i+1:]...)
			break
		}
	}
	l.text = bytes.TrimSuffix(l.text, []byte("\r"))
	emit(*l)
}

// flush ends the lines that have no end, in the order begun.
func (s *splitter) flush(emit func(line)) {
	for len(s.streams) > 0 {
		s.end(s.streams[0], emit)
	}
}

// lineBuffer keeps lines until they are taken.
type lineBuffer struct {
	splitter
	lines []line
	// discard drops lines: the renderer does not print them.
	discard bool
}

func (b *lineBuffer) write(stream int, at time.Duration, data []byte) {
	if !b.discard {
		b.splitter.write(stream, at, data, b.keep)
	}
}

func (b *lineBuffer) keep(l line) { b.lines = append(b.lines, l) }

// take returns the complete lines and forgets them; with all, also those without an end.
func (b *lineBuffer) take(all bool) []line {
	if all {
		b.flush(b.keep)
	}
	out := b.lines
	b.lines = nil
	return out
}

// tailLines is how many lines of a failed vertex are shown again.
const tailLines = 10

// tail keeps the last lines of an output.
type tail struct {
	splitter
	lines []line
	// whole keeps all lines: the renderer has not printed them before.
	whole bool
}

func (t *tail) write(stream int, at time.Duration, data []byte) {
	t.splitter.write(stream, at, data, t.keep)
}

func (t *tail) keep(l line) {
	t.lines = append(t.lines, l)
	if !t.whole && len(t.lines) > tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
}

// all returns the lines, with those that have no end.
func (t *tail) all() []line {
	t.flush(t.keep)
	return t.lines
}
