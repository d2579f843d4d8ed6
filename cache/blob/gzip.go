package blob

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

// Parallel gzip.
//
// The input is cut into blocks of a fixed size. Each is deflated on its own, with the last 32 KiB
// of the block before as dictionary, and ends at a byte boundary with an empty stored block; an
// empty final block ends the stream. Blocks depend on the input alone, so the bytes are the same on
// any number of cores (RFC 1951 for the format, section 3.2.4 for stored blocks).

const (
	gzipBlock  = 1 << 20
	gzipWindow = 32 << 10
)

// gzipHeader is a gzip member without name and time, made on an unknown system (RFC 1952, 2.3).
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

// finalBlock is an empty last block with fixed codes.
var finalBlock = []byte{0x03, 0x00}

type gzipWriter struct {
	w     io.Writer
	level int

	block  []byte
	window []byte
	crc    uint32
	size   uint32

	queue  chan *gzipJob
	jobs   sync.Pool
	writer sync.WaitGroup

	mu     sync.Mutex
	err    error
	closed bool
}

type gzipJob struct {
	in, window []byte
	out        bytes.Buffer
	done       chan error
}

// newGzipWriter returns a writer of one gzip member. It uses goroutines until it is closed.
func newGzipWriter(w io.Writer, level int) (*gzipWriter, error) {
	if level < flate.HuffmanOnly || level > flate.BestCompression {
		return nil, fmt.Errorf("gzip has no compression level %d", level)
	}
	z := &gzipWriter{w: w, level: level, queue: make(chan *gzipJob, runtime.GOMAXPROCS(0))}
	z.writer.Go(z.write)
	return z, nil
}

// write writes finished blocks in order.
func (z *gzipWriter) write() {
	z.emit(gzipHeader)
	for job := range z.queue {
		if err := <-job.done; err != nil {
			z.fail(err)
		}
		z.emit(job.out.Bytes())
		z.jobs.Put(job)
	}
}

func (z *gzipWriter) emit(p []byte) {
	if z.failed() != nil {
		return
	}
	if _, err := z.w.Write(p); err != nil {
		z.fail(err)
	}
}

func (z *gzipWriter) fail(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err == nil {
		z.err = err
	}
}

func (z *gzipWriter) failed() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err
}

func (z *gzipWriter) Write(p []byte) (int, error) {
	if z.closed {
		return 0, errors.New("write to a closed gzip writer")
	}
	if err := z.failed(); err != nil {
		return 0, err
	}
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
	z.size += uint32(len(p))
	n := len(p)
	for len(p) > 0 {
		if z.block == nil {
			z.block = make([]byte, 0, gzipBlock)
		}
		take := min(gzipBlock-len(z.block), len(p))
		z.block, p = append(z.block, p[:take]...), p[take:]
		if len(z.block) == gzipBlock {
			z.send()
		}
	}
	return n, nil
}

// send starts the compression of the block at hand.
func (z *gzipWriter) send() {
	job, _ := z.jobs.Get().(*gzipJob)
	if job == nil {
		job = &gzipJob{done: make(chan error, 1)}
	}
	job.out.Reset()
	reuse := job.in
	job.in, job.window = z.block, z.window
	z.window = append([]byte(nil), z.block[max(0, len(z.block)-gzipWindow):]...)
	z.block = nil
	if cap(reuse) == gzipBlock {
		z.block = reuse[:0]
	}
	z.queue <- job
	go func() { job.done <- job.deflate(z.level) }()
}

func (j *gzipJob) deflate(level int) error {
	fw, err := flate.NewWriterDict(&j.out, level, j.window)
	if err != nil {
		return err
	}
	if _, err := fw.Write(j.in); err != nil {
		return err
	}
	return fw.Flush()
}

// Close writes what is left and the trailer. It does not close the writer below.
func (z *gzipWriter) Close() error {
	if z.closed {
		return z.failed()
	}
	z.closed = true
	if len(z.block) > 0 {
		z.send()
	}
	close(z.queue)
	z.writer.Wait()
	trailer := append([]byte(nil), finalBlock...)
	trailer = binary.LittleEndian.AppendUint32(trailer, z.crc)
	trailer = binary.LittleEndian.AppendUint32(trailer, z.size)
	z.emit(trailer)
	return z.failed()
}
