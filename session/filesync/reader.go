package filesync

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/tonistiigi/fsutil/types"
)

// fileBatch is how many files a reader takes at once, to send small ones together.
const fileBatch = 32

// fileReader sends the content of files. Small ones go together, with the end of each behind it.
type fileReader struct {
	*sender
	buf     []byte
	used    int // bytes of buf that packets hold
	packets []*types.Packet
	ended   int // files that are complete with packets
}

// readFiles sends files as long as some are asked for.
func (s *sender) readFiles() error {
	r := fileReader{sender: s}
	var files []file
	for {
		var err error
		if files, err = s.take(fileBatch, files[:0]); err != nil || len(files) == 0 {
			return err
		}
		if r.buf == nil { // most readers of small transfers never need it
			r.buf = make([]byte, s.opt.chunk)
		}
		for _, f := range files {
			if err := r.add(f); err != nil {
				return err
			}
		}
		if err := r.flush(); err != nil {
			return err
		}
	}
}

// add sends one file, or has it sent with the next. A file that is gone since it was described is
// sent as empty, as other senders do; any other failure ends the transfer.
func (r *fileReader) add(want file) error {
	f, err := r.opt.open(filepath.FromSlash(want.path))
	if errors.Is(err, fs.ErrNotExist) {
		return r.end(want.id)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	file, short := f.(*handle) // whose short reads tell the end
	if short && r.opt.tokens && time.Since(want.began) < tokenGrace {
		settle(r.stream.Context(), file)
	}
	for {
		if len(r.buf)-r.used < min(len(r.buf), minRead) {
			if err := r.flush(); err != nil {
				return err
			}
		}
		n, err := readChunk(f, r.buf[r.used:], short)
		if err != nil && err != io.EOF {
			return &fs.PathError{Op: "read", Path: want.path, Err: err}
		}
		if n > 0 {
			p := &types.Packet{Type: types.PACKET_DATA, ID: want.id, Data: r.buf[r.used : r.used+n]}
			r.packets = append(r.packets, p)
			r.used += n
		}
		if err == io.EOF {
			return r.end(want.id)
		}
	}
}

// minRead is the least room for a read.
const minRead = 16 << 10

// end adds the end of a file.
func (r *fileReader) end(id uint32) error {
	r.packets = append(r.packets, &types.Packet{Type: types.PACKET_DATA, ID: id})
	r.ended++
	if r.used < r.stream.batchSize() && len(r.packets) < maxBatch/2 {
		return nil
	}
	return r.flush()
}

// flush sends what was read.
func (r *fileReader) flush() error {
	if len(r.packets) == 0 {
		return nil
	}
	var size int64
	for _, p := range r.packets {
		if len(p.Data) > 0 {
			size += packetSize(p)
		}
	}
	r.served(r.ended)
	err := r.stream.send(r.packets...)
	clear(r.packets)
	r.packets, r.used, r.ended = r.packets[:0], 0, 0
	r.moved.Add(size)
	return err
}

// settle waits until a change of the file would show in its change token. Tokens are those of
// changes before the walk began, so there is nothing to wait for once that is long ago.
func settle(ctx context.Context, f *handle) {
	age := time.Since(f.changed())
	if age < 0 || age >= tokenGrace {
		return
	}
	timer := time.NewTimer(tokenGrace - age)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// readChunk fills buf; io.EOF comes with the last data.
func readChunk(r io.Reader, buf []byte, short bool) (int, error) {
	if short {
		n, err := r.Read(buf)
		if err == nil && n < len(buf) {
			err = io.EOF
		}
		return n, err
	}
	n, err := io.ReadFull(r, buf)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}
