package feed

import (
	"io"
)

// Recording is all that a build told, in frames of MediaType: in memory if it is short, in a file
// otherwise. The file belongs to who asked for the recording.
type Recording struct {
	// Data is nil if there is a file.
	Data []byte
	Path string
	Size int64
}

// Record returns the recording of a feed that is closed. It may be called once, before Release.
// It fails if the disk took a part of the output and then no more.
func (f *Feed) Record() (*Recording, error) {
	t := f.tape
	t.mu.Lock()
	for t.spilling {
		t.room.Wait()
	}
	// What is short is wanted in memory, even if it was saved.
	short := t.file == nil || t.size < spillAt
	if !short && t.failure == nil && t.size > t.flushed {
		if err := t.flush(); err != nil {
			t.fail(err)
		}
	}
	file, size, failure := t.file, t.size, t.failure
	t.taken = !short && failure == nil
	t.mu.Unlock()
	if short {
		data := make([]byte, size)
		_, err := t.ReadAt(data, 0)
		return &Recording{Data: data, Size: size}, err
	}
	if failure != nil {
		return nil, failure
	}
	return &Recording{Path: file.Name(), Size: size}, nil
}

// Save writes what was told so far to the disk, without waiting for that to be safe, and returns the path of
// the file: what Recover needs if the program ends before the build. The file is no longer there after
// Release. It fails once the feed is closed.
func (f *Feed) Save() (path string, err error) { return f.tape.save() }

// Replay calls emit with the messages of a recording of size bytes, each valid until emit returns.
func Replay(recording io.ReaderAt, size int64, emit func(status []byte) error) error {
	r := reader{src: recording}
	for off := int64(0); off < size; {
		message, next, err := r.next(off, size)
		if err != nil {
			return err
		}
		if err := emit(message); err != nil {
			return err
		}
		off = next
	}
	return nil
}

// bytesAt reads from memory.
type bytesAt []byte

// ReadAt implements io.ReaderAt.
func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
