package blob

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync"
)

// blockSize is where input is cut. It decides the bytes of gzip layers: see gzip.go.
const blockSize = 1 << 20

// maxAhead bounds how many blocks of one layer wait in memory, whatever the number of cores;
// fewAhead is enough where they are only passed on.
const (
	maxAhead = 16
	fewAhead = 2
)

// ahead returns how many blocks are worked on beside each other.
func ahead() int { return min(2*runtime.GOMAXPROCS(0), maxAhead) }

// block is a piece of the input of a layer and what became of it.
type block struct {
	in []byte
	// before is what came right before in, as far as the work wants to know.
	before []byte
	out    bytes.Buffer
	busy   sync.WaitGroup
	err    error
}

// blocks keeps what large layers have used for the next ones.
var blocks = sync.Pool{New: func() any { return new(block) }}

// newBlock returns an empty block that can take size bytes.
func newBlock(size int) *block {
	b := blocks.Get().(*block)
	if cap(b.in) < size {
		b.in = make([]byte, 0, size)
	}
	b.in, b.before, b.err = b.in[:0], b.before[:0], nil
	b.out.Reset()
	return b
}

// ordered has blocks worked on beside each other and passes them on in the order they came.
type ordered struct {
	emit func(*block) error
	// tap sees the inputs in their order, beside the work.
	tap     hash.Hash
	tapping chan *block
	queue   chan *block
	ended   sync.WaitGroup

	mu  sync.Mutex
	err error
}

// newOrdered starts goroutines that end with close. Emit is called by one of them.
func newOrdered(ahead int, tap hash.Hash, emit func(*block) error) *ordered {
	o := &ordered{emit: emit, tap: tap, queue: make(chan *block, ahead)}
	if tap != nil {
		o.tapping = make(chan *block, ahead)
		o.ended.Go(o.runTap)
	}
	o.ended.Go(o.run)
	return o
}

func (o *ordered) runTap() {
	for b := range o.tapping {
		o.tap.Write(b.in)
		b.busy.Done()
	}
}

func (o *ordered) run() {
	for b := range o.queue {
		b.busy.Wait()
		err := b.err
		if err == nil && o.failed() == nil {
			err = o.emit(b)
		}
		if err != nil {
			o.fail(err)
		}
		blocks.Put(b)
	}
}

// send hands over a block and waits while too many are under way. Without work the block goes on
// as it is.
func (o *ordered) send(b *block, work func(*block) error) {
	if work != nil {
		b.busy.Add(1)
		go func() {
			defer b.busy.Done()
			b.err = guard(func() error { return work(b) })
		}()
	}
	if o.tap != nil {
		b.busy.Add(1)
		o.tapping <- b
	}
	o.queue <- b
}

// guard turns a panic into an error: nobody up the stack could.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return fn()
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

// close waits until all blocks have been passed on.
func (o *ordered) close() error {
	if o.tapping != nil {
		close(o.tapping)
	}
	close(o.queue)
	o.ended.Wait()
	return o.failed()
}

// splitter cuts what is written into blocks of blockSize.
type splitter struct {
	*ordered
	work func(*block) error
	// look is how much of the end of a block the next one gets to see.
	look   int
	cur    *block
	last   []byte
	closed bool
}

var errClosed = errors.New("write to a closed compressor")

func (s *splitter) Write(p []byte) (int, error) {
	if s.closed {
		return 0, errClosed
	}
	if err := s.failed(); err != nil {
		return 0, err
	}
	n := len(p)
	for len(p) > 0 {
		if s.cur == nil {
			s.cur = newBlock(blockSize)
		}
		take := min(blockSize-len(s.cur.in), len(p))
		s.cur.in, p = append(s.cur.in, p[:take]...), p[take:]
		if len(s.cur.in) == blockSize {
			s.flush()
		}
	}
	return n, nil
}

func (s *splitter) flush() {
	b := s.cur
	s.cur = nil
	b.before = append(b.before, s.last...)
	s.last = append(s.last[:0], b.in[max(0, len(b.in)-s.look):]...)
	s.send(b, s.work)
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

func newPlain(w io.Writer) *plain {
	return &plain{splitter{ordered: newOrdered(fewAhead, nil, func(b *block) error {
		_, err := w.Write(b.in)
		return err
	})}}
}

func (p *plain) Close() error { return p.end() }
