package blob

import (
	"errors"
	"io"
	"runtime"
	"sync"
)

// maxAhead bounds how many pieces of one layer are under way, whatever the number of cores; fewAhead is
// enough where they are only passed on.
const (
	maxAhead = 16
	fewAhead = 2
)

// ahead returns how many pieces are worked on beside each other.
func ahead() int { return min(2*runtime.GOMAXPROCS(0), maxAhead) }

// ordered has pieces worked on beside each other and passes them on in the order they came.
type ordered struct {
	stock *stock
	emit  func(*piece) error
	// tap sees the inputs in their order, beside the work; it may be nil.
	tap     io.Writer
	tapping chan *piece
	queue   chan *piece
	ended   sync.WaitGroup

	mu  sync.Mutex
	err error
}

// newOrdered starts goroutines that end with close. Emit is called by one of them.
func newOrdered(s *stock, ahead int, tap io.Writer, emit func(*piece) error) *ordered {
	o := &ordered{stock: s, emit: emit, tap: tap, queue: make(chan *piece, ahead)}
	s.enter()
	if tap != nil {
		o.tapping = make(chan *piece, ahead)
		o.ended.Go(o.runTap)
	}
	o.ended.Go(o.run)
	return o
}

func (o *ordered) runTap() {
	for p := range o.tapping {
		_, _ = o.tap.Write(p.in) // digests never fail
		p.busy.Done()
	}
}

func (o *ordered) run() {
	for p := range o.queue {
		p.busy.Wait()
		err := p.err
		if err == nil && o.failed() == nil {
			err = o.emit(p)
		}
		if err != nil {
			o.fail(err)
		}
		o.stock.put(p)
	}
}

// send hands over a piece and waits while too many are under way. Without work the piece goes on
// as it is.
func (o *ordered) send(p *piece, work func(*piece) error) {
	if work != nil {
		p.busy.Add(1)
		go func() {
			defer p.busy.Done()
			p.err = guarded(func() error { return work(p) })
		}()
	}
	if o.tap != nil {
		p.busy.Add(1)
		o.tapping <- p
	}
	o.queue <- p
}

func (o *ordered) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
}

func (o *ordered) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// close waits until all pieces have been passed on. It is called once.
func (o *ordered) close() error {
	if o.tapping != nil {
		close(o.tapping)
	}
	close(o.queue)
	o.ended.Wait()
	o.stock.leave()
	return o.failed()
}

// splitter cuts what is written into pieces of the size of their kind.
type splitter struct {
	*ordered
	kind kind
	work func(*piece) error
	// look is how much of the end of a piece the next one gets to see.
	look   int
	cur    *piece
	last   []byte
	closed bool
}

var errClosed = errors.New("write to a closed compressor")

func (s *splitter) Write(data []byte) (int, error) {
	if s.closed {
		return 0, errClosed
	}
	if err := s.failed(); err != nil {
		return 0, err
	}
	n, size := len(data), s.kind.size()
	for len(data) > 0 {
		if s.cur == nil {
			s.cur = s.stock.get(s.kind)
		}
		take := min(size-len(s.cur.in), len(data))
		s.cur.append(data[:take])
		data = data[take:]
		if len(s.cur.in) == size {
			s.flush()
		}
	}
	return n, nil
}

func (s *splitter) flush() {
	p := s.cur
	s.cur = nil
	p.before = append(p.before, s.last...)
	s.last = append(s.last[:0], p.in[max(0, len(p.in)-s.look):]...)
	s.send(p, s.work)
}

// end sends what is left and waits for all.
func (s *splitter) end() error {
	if s.closed {
		return s.failed()
	}
	s.closed = true
	if s.cur != nil {
		s.flush()
	}
	return s.close()
}

// plain passes the input on beside the one who writes it.
type plain struct{ splitter }

func newPlain(s *stock, w io.Writer) *plain {
	return &plain{splitter{kind: kind{form: Uncompressed}, ordered: newOrdered(s, fewAhead, nil, func(p *piece) error {
		_, err := w.Write(p.in)
		return err
	})}}
}

func (p *plain) Close() error { return p.end() }
