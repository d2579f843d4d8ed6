package blob

import (
	"crypto/sha256"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// Compressors makes compressors that share memory: however many there are, and whatever they do, all
// together take a fixed amount of it, and wait for each other if that does not do. The zero value is
// ready for use; a daemon has one.
type Compressors struct{ stock stock }

// Compressor makes a blob of an archive that is written to it.
type Compressor struct {
	io.WriteCloser
	hash hash.Hash
}

// New returns a writer that compresses to w. What w gets depends on what is written, the form and the
// level alone: neither on the sizes of writes nor on the number of cores. Close ends the blob, must be
// called also after an error, and leaves w open; w is written to by other goroutines until it
// returns. It must not depend on another compressor how fast a compressor is written to.
func (cs *Compressors) New(w io.Writer, c Compression, level *int) (*Compressor, error) {
	if c == "" {
		c = Gzip
	}
	if err := CheckLevel(c, level); err != nil {
		return nil, err
	}
	z := &Compressor{hash: sha256.New()}
	switch c {
	case Uncompressed:
		z.WriteCloser, z.hash = newPlain(&cs.stock, w), nil
	case Zstd:
		z.WriteCloser = newZstdWriter(&cs.stock, w, zstdSpeed(level), z.hash)
	case EStargz:
		z.WriteCloser = newStargzWriter(&cs.stock, w, deflateLevel(level), z.hash)
	default:
		z.WriteCloser = newGzipWriter(&cs.stock, w, deflateLevel(level), z.hash)
	}
	return z, nil
}

// ArchiveDigest returns the digest of what was written, after Close. It is empty for Uncompressed,
// where w sees the same bytes and most writers digest them anyway.
func (c *Compressor) ArchiveDigest() digest.Digest {
	if c.hash == nil {
		return ""
	}
	return digest.NewDigest(digest.SHA256, c.hash)
}

// DiffID returns the digest of what the blob unpacks to, after Close: that of the archive, but for
// EStargz, which adds a file to it.
func (c *Compressor) DiffID() digest.Digest {
	if z, ok := c.WriteCloser.(*stargzWriter); ok {
		return z.diffID
	}
	return c.ArchiveDigest()
}

// Annotations returns what the descriptor of the blob has to say for the form to be of use, after
// Close; nil if that is nothing.
func (c *Compressor) Annotations() map[string]string {
	if z, ok := c.WriteCloser.(*stargzWriter); ok {
		return z.annotations()
	}
	return nil
}
