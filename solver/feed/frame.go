package feed

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// MediaType is that of a recording: frames, each the length of a message as 4 bytes, the lowest
// first, and the message, an encoded StatusResponse.
const MediaType = "application/vnd.buildkit.status.v0"

const (
	headerSize = 4
	// maxFrame bounds what is believed of a length: a message with one record of any size.
	maxFrame = 64 << 20
	// messageSize is how many bytes of frames are put into one message. A slow reader holds as many.
	messageSize = 64 << 10
)

// ErrDamaged is the error of frames that are none, of the kind of errdefs.ErrDataLoss.
var ErrDamaged = fmt.Errorf("the recording of a build is damaged: %w", errdefs.ErrDataLoss)

// framesSize is how much appendFrames adds.
func framesSize(messages []*controlpb.StatusResponse) int {
	n := 0
	for _, m := range messages {
		n += headerSize + proto.Size(m)
	}
	return n
}

func appendFrames(b []byte, messages []*controlpb.StatusResponse) ([]byte, error) {
	for _, m := range messages {
		start := len(b)
		b = append(b, 0, 0, 0, 0)
		var err error
		if b, err = (proto.MarshalOptions{}).MarshalAppend(b, m); err != nil {
			return nil, fmt.Errorf("encode progress: %w", err)
		}
		binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-headerSize))
	}
	return b, nil
}

// reader takes messages from frames. Several frames make one message: the fields of a
// StatusResponse are lists, and lists that follow each other are one.
type reader struct {
	src io.ReaderAt
	buf []byte
}

// next returns the message of the frames that begin at off, as many as suit, and the place where
// the next one begins. The message is valid until next is called again.
func (r *reader) next(off, end int64) (message []byte, next int64, err error) {
	if r.buf == nil {
		r.buf = make([]byte, messageSize)
	}
	b := r.buf[:min(int64(len(r.buf)), end-off)]
	if err := readFull(r.src, b, off); err != nil {
		return nil, off, err
	}
	out, used := r.buf[:0], 0
	for len(b)-used >= headerSize {
		size := int(binary.LittleEndian.Uint32(b[used:]))
		if size > maxFrame || int64(size) > end-off-int64(used)-headerSize {
			if used > 0 {
				break // what is before it is whole
			}
			return nil, off, fmt.Errorf("%w: a frame of %d bytes at %d of %d", ErrDamaged, size, off, end)
		}
		if used+headerSize+size > len(b) {
			if used == 0 {
				return r.large(off+headerSize, size)
			}
			break
		}
		// It moves to the front, over what was read.
		out = append(out, b[used+headerSize:used+headerSize+size]...)
		used += headerSize + size
	}
	if used == 0 {
		return nil, off, fmt.Errorf("%w: the frame at %d is cut off", ErrDamaged, off)
	}
	return out, off + int64(used), nil
}

// large reads a message that has no room beside others.
func (r *reader) large(off int64, size int) ([]byte, int64, error) {
	b := make([]byte, size)
	return b, off + int64(size), readFull(r.src, b, off)
}

func readFull(src io.ReaderAt, b []byte, off int64) error {
	n, err := src.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
