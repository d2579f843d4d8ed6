package blob

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// kind says what work a piece is made for. Pieces of a kind are as good as each other.
type kind struct {
	// form is Gzip, EStargz, Zstd or, for no work, Uncompressed.
	form Compression
	// level is the library's.
	level int
}

// size returns how much of the input a piece takes, in bytes. It decides the bytes of gzip and zstd
// layers.
func (k kind) size() int {
	switch k.form {
	case Zstd:
		return zstdPiece
	case EStargz:
		return memberSize
	default:
		return blockSize
	}
}

// cost returns the most memory that a piece takes, in bytes: with input, output and the compressor.
func (k kind) cost() int {
	switch k.form {
	case Uncompressed:
		return k.size()
	case Zstd:
		return 2*k.size() + zstdCost(zstd.EncoderLevel(k.level))
	default:
		return 2*k.size() + deflateCost
	}
}

// piece is a part of the input of a layer, what became of it, and all that the work on it takes. It is
// used again and again, and so makes next to no garbage.
type piece struct {
	kind
	in []byte
	// before is what came right before in, as far as the work wants to know.
	before []byte
	out    bytes.Buffer
	busy   sync.WaitGroup
	err    error
	// more marks a part of what the one before began: see members.
	more bool

	deflater *flate.Writer
	zstd     *zstd.Encoder
}

// clear makes a piece as good as new.
func (p *piece) clear() {
	p.in, p.before, p.err, p.more = p.in[:0], p.before[:0], nil, false
	p.out.Reset()
}

// append adds to the input.
func (p *piece) append(data []byte) {
	if n := len(p.in) + len(data); n > cap(p.in) {
		p.in = append(make([]byte, 0, p.capacity(n)), p.in...)
	}
	p.in = append(p.in, data...)
}

// reserve makes room for what the input may be compressed to, and more bytes.
func (p *piece) reserve(more int) {
	// What does not compress is stored, in blocks of at least 32 KiB with a header of a few bytes.
	if n := len(p.in) + len(p.in)>>8 + 64 + more; n > p.out.Available() {
		p.out = *bytes.NewBuffer(make([]byte, 0, p.capacity(n)+p.size()>>7))
	}
}

// capacity is how large a buffer is made that has to hold n bytes. Small layers have small ones, and
// what grows does so once.
func (p *piece) capacity(n int) int {
	if few := p.size() >> 4; n <= few {
		return few
	}
	return max(n, p.size())
}

// guarded turns a panic into an error: nobody up the stack of a goroutine could.
func guarded(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return fn()
}
