package cache

import (
	"context"
	"io"
)

// A layer is large if its archive has more than largeLayer bytes. Of those, all builds together
// compress maxLarge at a time: each takes up to 100 MB of memory, twice that with what the garbage
// collector leaves, and the cores that it can get. Smaller ones take little.
const (
	largeLayer = 4 << 20
	maxLarge   = 2
)

// inTurn returns write so that it waits for the turn of its layer as soon as that is a large one. The
// turn ends with end, which is called when write and what it wrote to are done.
func (m *Manager) inTurn(ctx context.Context, write func(io.Writer) error) (inTurn func(io.Writer) error, end func()) {
	entered := false
	enter := func() error {
		if m.large.Acquire(ctx, 1) != nil {
			return context.Cause(ctx)
		}
		entered = true
		return nil
	}
	inTurn = func(w io.Writer) error { return write(&turnstile{Writer: w, left: largeLayer, enter: enter}) }
	return inTurn, func() {
		if entered {
			m.large.Release(1)
		}
	}
}

// turnstile calls enter before it passes more bytes on than are left.
type turnstile struct {
	io.Writer
	left  int
	enter func() error
}

func (t *turnstile) Write(p []byte) (int, error) {
	if t.left >= 0 {
		if t.left -= len(p); t.left < 0 {
			if err := t.enter(); err != nil {
				return 0, err
			}
		}
	}
	return t.Writer.Write(p)
}
