package blob

import (
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// Parallel gzip.
//
// The input is cut into pieces of a fixed size. Each is deflated on its own, with the last 32 KiB
// of the piece before as dictionary, and ends at a byte boundary with an empty stored block; an
// empty final block ends the stream. Pieces depend on the input alone, so the bytes are the same on
// any number of cores (RFC 1951 for the format, section 3.2.4 for stored blocks).

// blockSize is how much of the input is compressed on its own, in bytes.
const blockSize = 1 << 20

// gzipWindow is how far back a match can reach.
const gzipWindow = 32 << 10

// defaultDeflate is the level of the library that is used when none is asked for.
const defaultDeflate = 5

// deflateLevels maps levels as gzip's users know them to those of the library, whose levels from 5
// on compress less than zlib's of the same number. Level 6 here is about 3 % larger than zlib's
// on binaries, the library's own level 6 more than 5 %.
var deflateLevels = [...]int{0, 1, 2, 3, 5, 6, 8, 8, 9, 9}

func deflateLevel(level *int) int {
	if level == nil {
		return defaultDeflate
	}
	return deflateLevels[*level]
}

// gzipHeader is a gzip member without name and time, made on an unknown system (RFC 1952, 2.3).
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

// finalBlock is an empty last block with fixed codes.
var finalBlock = []byte{0x03, 0x00}

// deflateCost is the size of a compressor, in bytes.
const deflateCost = 3 << 19

// deflate compresses a piece of a longer stream; with last the stream ends there.
func deflate(p *piece, last bool) error {
	p.reserve(0)
	if p.deflater == nil {
		var err error
		if p.deflater, err = flate.NewWriterDict(&p.out, p.level, p.before); err != nil {
			return err
		}
	} else {
		p.deflater.ResetDict(&p.out, p.before)
	}
	if _, err := p.deflater.Write(p.in); err != nil {
		return err
	}
	if last {
		return p.deflater.Close()
	}
	return p.deflater.Flush()
}

// trailer ends a gzip member.
func trailer(p []byte, crc uint32, size int64) []byte {
	p = binary.LittleEndian.AppendUint32(p, crc)
	return binary.LittleEndian.AppendUint32(p, uint32(size)) // modulo 2^32 (RFC 1952, 2.3.1)
}

// gzipWriter writes one gzip member.
type gzipWriter struct {
	splitter
	w    io.Writer
	crc  uint32
	size int64
}

// newGzipWriter returns a writer at a level of the library. Goroutines run until it is closed.
func newGzipWriter(s *stock, w io.Writer, level int, tap hash.Hash) *gzipWriter {
	z := &gzipWriter{w: w}
	begun := false
	z.splitter = splitter{
		kind: kind{Gzip, level},
		ordered: newOrdered(s, ahead(), tap, func(p *piece) error {
			if !begun {
				begun = true
				if _, err := w.Write(gzipHeader); err != nil {
					return err
				}
			}
			_, err := w.Write(p.out.Bytes())
			return err
		}),
		work: func(p *piece) error { return deflate(p, false) },
		look: gzipWindow,
	}
	return z
}

func (z *gzipWriter) Write(p []byte) (int, error) {
	n, err := z.splitter.Write(p)
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p[:n])
	z.size += int64(n)
	return n, err
}

// Close writes what is left and the trailer. It does not close the writer below.
func (z *gzipWriter) Close() error {
	if z.closed {
		return z.failed()
	}
	if err := z.end(); err != nil {
		return err
	}
	var tail []byte
	if z.size == 0 {
		tail = append(tail, gzipHeader...)
	}
	_, err := z.w.Write(trailer(append(tail, finalBlock...), z.crc, z.size))
	if err != nil {
		z.fail(err)
	}
	return err
}
