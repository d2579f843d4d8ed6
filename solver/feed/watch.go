package feed

import (
	"context"
	"errors"
	"time"

	"github.com/openbuildkit/buildkit/api/event"
)

// ErrReleased is the error of watching a feed that is over and gone.
var ErrReleased = errors.New("the feed is not there any more")

// Watch calls emit with all that was and will be told to those who watch, until the feed is
// closed, ctx ends or emit fails. What emit gets is an encoded StatusResponse, valid until emit
// returns. The error is ErrReleased if Release was called before.
func (f *Feed) Watch(ctx context.Context, emit func(status []byte) error) error {
	t := f.tape
	if !t.open() {
		return ErrReleased
	}
	defer t.close()
	w := watch{tape: t, reader: reader{src: t}}
	for {
		message, err := w.next(ctx)
		if err != nil || message == nil {
			return err
		}
		if err := emit(message); err != nil {
			return err
		}
	}
}

// watch is one who watches, with the place where it is.
type watch struct {
	tape   *tape
	reader reader
	// span is the index of the span that is read, off the place in it.
	span int
	off  int64
}

// next waits for more and returns it, nil at the end.
func (w *watch) next(ctx context.Context) ([]byte, error) {
	for {
		s, more, pause, ok := w.current()
		if ok {
			message, next, err := w.read(s)
			if err != nil {
				return nil, err
			}
			w.off = next - s.off
			if len(message) > 0 {
				return message, nil
			}
			continue
		}
		if more == nil {
			return nil, nil
		}
		select {
		case <-more:
			w.tape.unwatch()
		case <-ctx.Done():
			w.tape.unwatch()
			return nil, context.Cause(ctx)
		}
		if err := w.tape.rest(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func (w *watch) read(s span) (message []byte, next int64, err error) {
	if s.extra == nil {
		return w.reader.next(s.off+w.off, s.off+s.size)
	}
	r := reader{src: bytesAt(s.extra)}
	return r.next(w.off, int64(len(s.extra)))
}

// current returns the span that has something to be read. If there is none it returns a channel
// that is closed when there is, nil at the end of the tape, and how long to rest after that.
func (w *watch) current() (s span, more <-chan struct{}, pause time.Duration, ok bool) {
	t := w.tape
	t.mu.Lock()
	defer t.mu.Unlock()
	for w.span < len(t.live) {
		s = t.live[w.span]
		if s.extra != nil {
			s.size = int64(len(s.extra))
		}
		if w.off < s.size {
			return s, nil, 0, true
		}
		if w.span == len(t.live)-1 && s.extra == nil {
			// It may still grow.
			break
		}
		w.span++
		w.off = 0
	}
	if t.ended() {
		return span{}, nil, 0, false
	}
	t.watchers++
	return span{}, t.more, pauseFor(t.readers), false
}

func (t *tape) unwatch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchers--
}

const (
	// pauseOfEach is how long a reader rests after it was woken, for each reader there is: all
	// together are woken less than a thousand times a second, however many they are.
	pauseOfEach = 2 * time.Millisecond
	// free is how many readers need not rest.
	freeReaders = 2
	// longestPause is what people do not notice.
	longestPause = 250 * time.Millisecond
)

func pauseFor(readers int) time.Duration {
	return min(time.Duration(max(0, readers-freeReaders))*pauseOfEach, longestPause)
}

// rest waits for d, or for the end of the tape: nobody is to wait for the last of a build because
// others read it too.
func (t *tape) rest(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Piece is output on a tape.
type Piece struct {
	tape      *tape
	off, size int64
	// hidden is not shown to those who watch.
	hidden bool
	// extra, without a tape, are frames for those who watch only.
	extra []byte
}

// Pieces is output of one step, in order, wherever it is. The zero value is empty. Its methods
// may not be called concurrently.
type Pieces struct{ list []Piece }

// Add adds what Keep returned.
func (p *Pieces) Add(pieces []Piece) {
	for _, n := range pieces {
		if n.tape == nil && n.extra == nil {
			continue
		}
		if l := len(p.list); l > 0 {
			last := &p.list[l-1]
			if n.tape != nil && last.tape == n.tape && last.hidden == n.hidden && last.off+last.size == n.off {
				last.size += n.size
				continue
			}
		}
		if n.tape == nil || n.tape.hold() {
			p.list = append(p.list, n)
		}
	}
}

// Release gives up all.
func (p *Pieces) Release() {
	var tapes []*tape
	for _, piece := range p.list {
		if piece.tape != nil {
			tapes = append(tapes, piece.tape)
		}
	}
	p.list = nil
	letGo(tapes)
}

// Len returns how many pieces there are that do not follow each other.
func (p *Pieces) Len() int { return len(p.list) }

var _ event.Sink = (*Feed)(nil)
