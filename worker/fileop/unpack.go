package fileop

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// unpack extracts a source that is an archive into the destination, and tells whether it was one.
func (c *copier) unpack(from *place) (bool, error) {
	ok, err := c.isArchive(from)
	if !ok || err != nil {
		return false, err
	}
	in, err := openAt(from, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer in.Close()
	r, err := decompress(c.ctx, in)
	if err != nil {
		return true, unpackError(from, err)
	}
	defer r.Close()
	dir, _, err := c.dst.MkdirAll(c.a.Dest, c.made.with(stamped(0o755, c.owner, c.a.Timestamp)))
	if err != nil {
		return true, err
	}
	defer dir.Close()
	if err := c.extract(procPath(dir), cancelled{c.ctx, r}); err != nil {
		return true, unpackError(from, err)
	}
	return true, nil
}

// cancelled ends reading when a context ends: little that is compressed can be a lot to read.
type cancelled struct {
	ctx context.Context //nolint:containedctx // of the one archive
	io.Reader
}

func (r cancelled) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

func unpackError(from *place, err error) error {
	return fmt.Errorf("unpack %s: %w", from.path, err)
}

// isArchive looks at the beginning of a file: a tar archive, perhaps compressed, begins with a
// header that is right.
func (c *copier) isArchive(from *place) (bool, error) {
	in, err := openAt(from, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer in.Close()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	r, err := decompress(ctx, in)
	if err != nil {
		var missing *exec.Error
		if errors.As(err, &missing) {
			return false, unpackError(from, err)
		}
		return false, nil
	}
	defer r.Close()
	_, err = tar.NewReader(r).Next()
	return err == nil, nil
}

// extract writes an archive out below a folder of the host. Names and links that point outside
// stay inside.
func (c *copier) extract(dir string, r io.Reader) error {
	_, err := layer.Unpack(c.ctx, dir, r, func(h *tar.Header) {
		if c.owner != nil {
			h.Uid, h.Gid = int(c.owner.UID), int(c.owner.GID)
		}
		if c.a.Timestamp >= 0 {
			h.ModTime = time.Unix(0, c.a.Timestamp)
		}
	})
	var entry *layer.EntryError
	if errors.As(err, &entry) {
		return fmt.Errorf("%s: %w", entry.Name, entry.Err)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// decompress returns the plain bytes of a stream that may be compressed.
func decompress(ctx context.Context, in io.Reader) (io.ReadCloser, error) {
	buf := bufio.NewReaderSize(in, 1<<16)
	head, err := buf.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(buf)), nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return unxz(ctx, buf)
	}
	// It knows gzip and zstd by their own marks and passes anything else on.
	return blob.NewDecompressor(buf)
}

// unxz runs xz, with its memory bounded: there is no maintained library to do it.
func unxz(ctx context.Context, in io.Reader) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, "xz", "-d", "-c", "-q", "--memlimit-decompress=256MiB")
	cmd.Stdin = in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &xzReader{out: out, cmd: cmd, stderr: &stderr, cancel: cancel}, nil
}

type xzReader struct {
	out    io.ReadCloser
	cmd    *exec.Cmd
	stderr *bytes.Buffer
	cancel context.CancelFunc
	done   bool
}

// Read returns an error if xz failed, after what it wrote.
func (x *xzReader) Read(p []byte) (int, error) {
	n, err := x.out.Read(p)
	if errors.Is(err, io.EOF) && !x.done {
		x.done = true
		if werr := x.cmd.Wait(); werr != nil {
			return n, fmt.Errorf("xz: %w: %s", werr, bytes.TrimSpace(x.stderr.Bytes()))
		}
	}
	return n, err
}

// Close ends xz if it still runs.
func (x *xzReader) Close() error {
	x.cancel()
	if !x.done {
		x.done = true
		// It was ended by us: how it ended tells nothing.
		_ = x.cmd.Wait()
	}
	return nil
}
