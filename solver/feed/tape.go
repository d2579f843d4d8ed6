package feed

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/containerd/log"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
)

const (
	// spillAt is how many bytes of a tape are in memory before they are moved to a file: most
	// builds never have one.
	spillAt = 256 << 10
	// waitAt is how many bytes may wait for the disk before steps have to.
	waitAt = 4 << 20
	// keepAtMost is how many bytes are kept in memory if the disk takes none. More output is lost.
	keepAtMost = 32 << 20
	// chunkSize is how much memory is taken at a time.
	chunkSize = 128 << 10
)

// tape is a row of frames, see frame.go, that grows at its end.
//
// Locks of two tapes are never held at once: each may have pieces of the other.
type tape struct {
	dir string

	mu sync.Mutex
	// owned, readers and pieces count who needs the tape: who made it, those that read all of it,
	// and those that have a Piece of it. Without them its file is closed.
	owned           bool
	readers, pieces int
	size            int64
	// flushed is how much of the tape is in the file, chunks hold the rest.
	flushed  int64
	file     *os.File
	chunks   []chunk
	live     []span
	failure  error
	spilling bool
	// taken is set when the file belongs to somebody else.
	taken bool

	// more is closed and replaced when there is more, or the end, if somebody waits for it.
	more     chan struct{}
	watchers int
	// over is closed at the end.
	over chan struct{}
	// room is signalled when spilling has got on.
	room *sync.Cond
}

// chunk is a part of a tape that is not in its file: bytes, or a part of another tape.
type chunk struct {
	off, size int64
	data      []byte
	from      *tape
	at        int64 // the place on from
}

// span is a part of what those who watch are shown: bytes on the tape, or some that are not.
type span struct {
	off, size int64
	extra     []byte
}

func newTape(dir string) *tape {
	t := &tape{dir: dir, owned: true, more: make(chan struct{}), over: make(chan struct{})}
	t.room = sync.NewCond(&t.mu)
	return t
}

// append writes messages and returns where they are. Output is refused if it cannot be kept.
func (t *tape) append(who event.Audience, output bool, messages []*controlpb.StatusResponse) (Piece, error) {
	if len(messages) == 0 {
		return Piece{}, nil
	}
	if who == event.Watchers {
		frames, err := appendFrames(nil, messages)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.show(span{extra: frames})
		return Piece{extra: frames}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if output && t.failure != nil && (who == event.Record || t.size-t.flushed > keepAtMost) {
		return Piece{}, t.failure
	}
	c := t.last(framesSize(messages))
	data, err := appendFrames(c.data, messages)
	if err != nil {
		return Piece{}, err
	}
	p := Piece{tape: t, off: t.size, size: int64(len(data)) - c.size, hidden: who == event.Record}
	c.data, c.size = data, int64(len(data))
	t.grow(p.off, p.size, p.hidden)
	return p, nil
}

// last returns a chunk that takes size more bytes.
func (t *tape) last(size int) *chunk {
	n := len(t.chunks)
	if n > 0 {
		if c := &t.chunks[n-1]; c.from == nil && (len(c.data)+size <= chunkSize || len(c.data)+size <= cap(c.data)) {
			return c
		}
	}
	c := chunk{off: t.size}
	// The first chunks of a tape grow as they have to, those of a long one come and go.
	if t.flushed >= spillAt && size <= chunkSize {
		c.data = (*chunkPool.Get().(*[]byte))[:0]
	}
	t.chunks = append(t.chunks, c)
	return &t.chunks[n]
}

// chunkPool has what the data of chunks is in.
var chunkPool = sync.Pool{New: func() any {
	b := make([]byte, 0, chunkSize)
	return &b
}}

// repeat adds what is on another tape, which the holder of the piece keeps meanwhile.
func (t *tape) repeat(p Piece) {
	if p.tape != nil {
		p.tape.hold()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.tape == nil {
		t.show(span{extra: p.extra})
		return
	}
	t.chunks = append(t.chunks, chunk{off: t.size, size: p.size, from: p.tape, at: p.off})
	t.grow(t.size, p.size, p.hidden)
}

// grow says that size bytes have been added at off, the end.
func (t *tape) grow(off, size int64, hidden bool) {
	t.size += size
	if !hidden {
		t.show(span{off: off, size: size})
	}
	t.spillLater()
}

// spillLater has what is in memory moved to the file if it is a lot. The caller holds mu.
func (t *tape) spillLater() {
	if t.size-t.flushed >= spillAt && !t.spilling && t.failure == nil && t.dir != "" {
		t.spilling = true
		go t.spill()
	}
}

// show adds to what those who watch are shown.
func (t *tape) show(s span) {
	if n := len(t.live); n > 0 && s.extra == nil {
		if last := &t.live[n-1]; last.extra == nil && last.off+last.size == s.off {
			last.size += s.size
			t.wake()
			return
		}
	}
	t.live = append(t.live, s)
	t.wake()
}

func (t *tape) wake() {
	if t.watchers > 0 {
		close(t.more)
		t.more = make(chan struct{})
	}
}

// wait returns when there is room for more output.
func (t *tape) wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.size-t.flushed >= waitAt && t.spilling {
		t.room.Wait()
	}
}

// spill moves what is in memory to the file, until little is left.
func (t *tape) spill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.failure == nil && t.size-t.flushed >= spillAt {
		if err := t.flush(); err != nil {
			t.fail(err)
		}
	}
	t.spilling = false
	t.room.Broadcast()
}

// fail has nothing more be moved to the file. The caller holds mu.
func (t *tape) fail(err error) {
	log.L.WithError(err).Error("the output of a build cannot be stored")
	t.failure = errors.Unwrap(err)
	if t.failure == nil {
		t.failure = err
	}
}

// save moves what is in memory to the file, however little it is, and returns the path. A disk that does
// not take it is no harm: it stays in memory.
func (t *tape) save() (path string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.spilling {
		t.room.Wait()
	}
	switch {
	case t.ended():
		return "", errEnded
	case t.failure != nil:
		return "", t.failure
	case t.file != nil && t.size == t.flushed:
		return t.file.Name(), nil
	}
	t.spilling = true
	if err = t.flush(); err != nil && t.file != nil {
		// A part may have been written.
		if rerr := t.rewind(); rerr != nil {
			t.fail(rerr)
		}
	}
	t.spilling = false
	t.room.Broadcast()
	t.spillLater()
	if err != nil {
		return "", err
	}
	return t.file.Name(), nil
}

var errEnded = errors.New("the build has ended")

// rewind gives up what is in the file beyond what it is known to hold.
func (t *tape) rewind() error {
	_, err := t.file.Seek(t.flushed, io.SeekStart)
	return errors.Join(t.file.Truncate(t.flushed), err)
}

// flush moves what is in memory now to the file. The caller holds mu, which is let go of meanwhile,
// and is the only one that flushes.
func (t *tape) flush() error {
	chunks := append([]chunk(nil), t.chunks...)
	end := t.size
	t.mu.Unlock()
	file, err := t.write(chunks)
	t.mu.Lock()
	if err != nil {
		return err
	}
	t.file = file
	t.flushed = end
	var others []*tape
	for len(t.chunks) > 0 && t.chunks[0].off+t.chunks[0].size <= end {
		c := &t.chunks[0]
		if c.from != nil {
			others = append(others, c.from)
		}
		if cap(c.data) == chunkSize {
			data := c.data
			chunkPool.Put(&data)
		}
		t.chunks[0] = chunk{}
		t.chunks = t.chunks[1:]
	}
	if len(t.chunks) > 0 {
		if c := &t.chunks[0]; c.off < end {
			c.data = c.data[end-c.off:]
			c.off, c.size = end, int64(len(c.data))
		}
	}
	t.room.Broadcast()
	t.mu.Unlock()
	letGo(others)
	t.mu.Lock()
	return nil
}

// write appends chunks to the file, which is made first if there is none.
func (t *tape) write(chunks []chunk) (*os.File, error) {
	file := t.file
	if file == nil {
		if err := os.MkdirAll(t.dir, 0o700); err != nil {
			return nil, err
		}
		var err error
		if file, err = os.CreateTemp(t.dir, "tape-"); err != nil {
			return nil, err
		}
	}
	for _, c := range chunks {
		var err error
		if c.from != nil {
			_, err = io.Copy(onlyWriter{file}, io.NewSectionReader(c.from, c.at, c.size))
		} else {
			_, err = file.Write(c.data)
		}
		if err != nil {
			if t.file == nil {
				err = errors.Join(err, file.Close(), os.Remove(file.Name()))
			}
			return nil, err
		}
	}
	return file, nil
}

// onlyWriter hides that a file can read by itself: it would not be quicker.
type onlyWriter struct{ io.Writer }

// ReadAt implements io.ReaderAt. It must not be called with mu held, as it reads the disk.
func (t *tape) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = t.readSome(p[n:], off+int64(n))
		n += m
	}
	return n, err
}

// readSome reads from one place.
func (t *tape) readSome(p []byte, off int64) (int, error) {
	t.mu.Lock()
	if off >= t.size {
		t.mu.Unlock()
		return 0, io.EOF
	}
	if off < t.flushed {
		p = p[:min(int64(len(p)), t.flushed-off)]
		file := t.file
		t.mu.Unlock()
		return file.ReadAt(p, off)
	}
	c := t.chunkAt(off)
	off -= c.off
	if c.from == nil {
		// The lock keeps the bytes from being used for others.
		defer t.mu.Unlock()
		return copy(p, c.data[off:]), nil
	}
	t.mu.Unlock()
	if !c.from.hold() {
		// It is in the file by now.
		return 0, nil
	}
	defer letGo([]*tape{c.from})
	return c.from.ReadAt(p[:min(int64(len(p)), c.size-off)], c.at+off)
}

// chunkAt returns the chunk that holds the byte at off.
func (t *tape) chunkAt(off int64) chunk {
	lo, hi := 0, len(t.chunks)-1
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if t.chunks[mid].off <= off {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return t.chunks[lo]
}

// end says that nothing follows.
func (t *tape) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.over)
	t.wake()
}

// ended tells whether nothing follows. The caller holds mu.
func (t *tape) ended() bool {
	select {
	case <-t.over:
		return true
	default:
		return false
	}
}

// open lets one more read all of the tape. It returns false if the tape is gone.
func (t *tape) open() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.owned && t.readers == 0 {
		return false
	}
	t.readers++
	return true
}

// hold lets one more have a piece. It returns false if the tape is gone.
func (t *tape) hold() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.owned && t.readers == 0 && t.pieces == 0 {
		return false
	}
	t.pieces++
	return true
}

// letGo gives up pieces.
func letGo(tapes []*tape) {
	for _, t := range tapes {
		t.mu.Lock()
		t.pieces--
		t.unlockUnused()
	}
}

// close ends the reading of all.
func (t *tape) close() {
	t.mu.Lock()
	t.readers--
	t.unlockUnused()
}

// disown is called once by who made the tape.
func (t *tape) disown() {
	t.mu.Lock()
	for t.spilling {
		t.room.Wait()
	}
	t.owned = false
	if t.file != nil && !t.taken {
		_ = os.Remove(t.file.Name())
	}
	t.unlockUnused()
}

// unlockUnused frees what nobody needs any more, and unlocks mu. Pieces are never of what is a
// piece of another tape itself.
func (t *tape) unlockUnused() {
	var others []*tape
	if !t.owned && t.readers == 0 {
		for i := range t.chunks {
			if from := t.chunks[i].from; from != nil {
				others = append(others, from)
				t.chunks[i].from = nil
			}
		}
		if t.pieces == 0 {
			t.chunks = nil
			if t.file != nil {
				_ = t.file.Close()
			}
		}
	}
	t.mu.Unlock()
	letGo(others)
}
