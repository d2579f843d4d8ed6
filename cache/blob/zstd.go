package blob

import (
	"encoding/binary"
	"errors"
	"hash"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// Parallel zstd.
//
// The input is cut into pieces of a fixed size. The library makes a frame of each, and the blocks of
// these frames become one frame: some readers stop where the first one ends. That may be done as long
// as the blocks of a piece need nothing of what came before (RFC 8878):
//
//   - matches reach no further than to the beginning of the piece, as in a frame of its own;
//   - tables of an earlier block are used again only within the piece, since the first block of a frame
//     has no earlier ones (3.1.1.3.1.1 and 3.1.1.3.2.1);
//   - offsets of earlier matches are repeated (3.1.1.5) only once the block itself has had three: so
//     the library does it everywhere, because its blocks are made beside each other too.

// zstdPiece is how much of the input is compressed on its own, in bytes, and how far back a match
// reaches at most. With twice as much layers are 0.5 % (programs) to 2 % (source code) smaller, and half
// as many cores find room for their work.
const zstdPiece = 2 << 20

// defaultZstd is the level of zstd's own tool.
const defaultZstd = 3

var (
	// zstdHeader begins a frame with a window of 2 MiB, that is 2^(10+11), and a checksum; its size
	// is not known (3.1.1.1).
	zstdHeader = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x04, 11 << 3}
	// zstdEnd is a last block, with nothing in it.
	zstdEnd = []byte{0x01, 0, 0}
)

// zstdSpeed returns the library's level, of which there are four, for one of zstd's own tool.
func zstdSpeed(level *int) zstd.EncoderLevel {
	if level == nil {
		return zstd.EncoderLevelFromZstd(defaultZstd)
	}
	return zstd.EncoderLevelFromZstd(*level)
}

// zstdCost returns how much memory a compressor takes: a copy of the piece, what it keeps of a block,
// and the tables of its level, of entries of 8 bytes.
func zstdCost(speed zstd.EncoderLevel) int {
	cost := zstdPiece + 128<<10 + 1<<20
	switch speed {
	case zstd.SpeedFastest:
		return cost + 8<<15
	case zstd.SpeedDefault:
		return cost + 8<<15 + 8<<17
	case zstd.SpeedBetterCompression:
		return cost + 8<<13 + 8<<19
	default:
		return cost + 8<<18 + 8<<22
	}
}

// zstdWriter writes one zstd frame.
type zstdWriter struct {
	splitter
	w     io.Writer
	sum   *xxhash.Digest
	begun bool
}

func newZstdWriter(s *stock, w io.Writer, speed zstd.EncoderLevel, tap hash.Hash) *zstdWriter {
	z := &zstdWriter{w: w, sum: xxhash.New()}
	z.splitter = splitter{
		kind: kind{Zstd, int(speed)}, work: zstdBlocks,
		ordered: newOrdered(s, ahead(), io.MultiWriter(tap, z.sum), func(p *piece) error {
			if !z.begun {
				z.begun = true
				if _, err := w.Write(zstdHeader); err != nil {
					return err
				}
			}
			_, err := w.Write(p.out.Bytes())
			return err
		}),
	}
	return z
}

// Close ends the frame. It does not close the writer below.
func (z *zstdWriter) Close() error {
	if z.closed {
		return z.failed()
	}
	if err := z.end(); err != nil {
		return err
	}
	var tail []byte
	if !z.begun {
		tail = append(tail, zstdHeader...)
	}
	tail = append(tail, zstdEnd...)
	_, err := z.w.Write(binary.LittleEndian.AppendUint32(tail, uint32(z.sum.Sum64())))
	if err != nil {
		z.fail(err)
	}
	return err
}

// zstdBlocks makes blocks of a piece, none of which is a last one.
func zstdBlocks(p *piece) error {
	if p.zstd == nil {
		var err error
		p.zstd, err = zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.EncoderLevel(p.level)), zstd.WithWindowSize(zstdPiece),
			zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return err
		}
	}
	p.reserve(0)
	frame := p.zstd.EncodeAll(p.in, p.out.AvailableBuffer())
	blocks, err := openFrame(frame)
	if err != nil {
		return err
	}
	_, err = p.out.Write(blocks)
	return err
}

var errFrame = errors.New("the library has made a zstd frame of another form than expected")

// openFrame returns the blocks of a frame without a checksum, with the mark of the last one removed.
func openFrame(frame []byte) ([]byte, error) {
	if len(frame) < 5 || frame[4]&0b111 != 0 { // checksum, dictionary
		return nil, errFrame
	}
	// The sizes of fields (3.1.1.1.1): of the size of the content, and of the window unless that is it.
	size := [4]int{0, 2, 4, 8}[frame[4]>>6]
	switch single := frame[4]&0x20 != 0; {
	case !single:
		size++
	case size == 0:
		size = 1
	}
	if len(frame) < 5+size {
		return nil, errFrame
	}
	blocks := frame[5+size:]
	for at := 0; ; {
		if len(blocks) < at+3 {
			return nil, errFrame
		}
		header := uint32(blocks[at]) | uint32(blocks[at+1])<<8 | uint32(blocks[at+2])<<16
		last := header&1 != 0
		blocks[at] &^= 1
		at += 3
		if header>>1&3 == 1 { // one byte, repeated (3.1.1.2.2)
			at++
		} else {
			at += int(header >> 3)
		}
		if last {
			if at != len(blocks) {
				return nil, errFrame
			}
			return blocks, nil
		}
	}
}
