package blob

import (
	"errors"
	"hash"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// defaultZstd is the level of zstd's own tool.
const defaultZstd = 3

// zstdWriter writes one zstd frame.
//
// The library cuts the input into jobs of four windows, each of which sees the end of the one before.
// Jobs depend on the input alone as long as there are at least two workers, so there always are.
type zstdWriter struct {
	splitter
	enc *zstd.Encoder
}

// zstdSpeed returns the library's level, of which there are four, for one of zstd's own tool.
func zstdSpeed(level *int) zstd.EncoderLevel {
	if level == nil {
		return zstd.EncoderLevelFromZstd(defaultZstd)
	}
	return zstd.EncoderLevelFromZstd(*level)
}

func newZstdWriter(w io.Writer, level *int, tap hash.Hash) (*zstdWriter, error) {
	speed := zstdSpeed(level)
	window, workers := zstdJobs(speed)
	enc, err := zstd.NewWriter(w,
		zstd.WithEncoderLevel(speed), zstd.WithWindowSize(window), zstd.WithConcurrentBlocks(true),
		zstd.WithEncoderConcurrency(min(max(runtime.GOMAXPROCS(0), 2), workers)),
		zstd.WithZeroFrames(true)) // nothing at all is no zstd
	if err != nil {
		return nil, err
	}
	return &zstdWriter{enc: enc, splitter: splitter{ordered: newOrdered(tap, func(b *block) error {
		_, err := enc.Write(b.in)
		return err
	})}}, nil
}

// zstdJobs returns the window of a level in bytes and the most workers. A job holds four windows of
// input and about half of that as output; three more jobs than workers are in memory. Together with
// the tables of the workers that is 130 MB at most.
func zstdJobs(speed zstd.EncoderLevel) (window, workers int) {
	switch {
	case speed >= zstd.SpeedBestCompression: // with tables of 35 MB
		return 2 << 20, 2
	case speed >= zstd.SpeedBetterCompression:
		return 4 << 20, 3
	default:
		return 2 << 20, 8
	}
}

// Close ends the frame. It does not close the writer below.
func (z *zstdWriter) Close() error {
	if z.closed {
		return z.failed()
	}
	err := z.end()
	if closeErr := z.enc.Close(); closeErr != nil {
		err = errors.Join(err, closeErr)
		z.fail(err)
	}
	return err
}
