package blob

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of layers in Docker's formats; ocispec has those of OCI.
const (
	DockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

// MediaType returns the media type of a layer in form c.
func MediaType(c Compression, docker bool) string {
	switch c {
	case Gzip, EStargz:
		if docker {
			return DockerLayerGzip
		}
		return ocispec.MediaTypeImageLayerGzip
	case Zstd:
		if docker {
			return DockerLayerZstd
		}
		return ocispec.MediaTypeImageLayerZstd
	default:
		if docker {
			return DockerLayer
		}
		return ocispec.MediaTypeImageLayer
	}
}

// FromMediaType returns the form that a layer's media type stands for; known is false if the
// type is none of those that MediaType returns. An eStargz layer looks like one of gzip.
func FromMediaType(mt string) (c Compression, known bool) {
	switch mt {
	case ocispec.MediaTypeImageLayer, DockerLayer:
		return Uncompressed, true
	case ocispec.MediaTypeImageLayerGzip, DockerLayerGzip:
		return Gzip, true
	case ocispec.MediaTypeImageLayerZstd, DockerLayerZstd:
		return Zstd, true
	}
	switch {
	case strings.HasSuffix(mt, "gzip"):
		return Gzip, false
	case strings.HasSuffix(mt, "zstd"):
		return Zstd, false
	default:
		return Uncompressed, false
	}
}

// FormOf returns the form of a layer. Other than the media type alone, a descriptor as images have it
// tells an eStargz layer.
func FormOf(desc ocispec.Descriptor) Compression {
	form, _ := FromMediaType(desc.MediaType)
	if form == Gzip && desc.Annotations[estargz.TOCJSONDigestAnnotation] != "" {
		return EStargz
	}
	return form
}

// ArchiveSize returns how much of a blob of size bytes holds the layer's archive: all of it, but for
// eStargz, where a table of contents follows.
func ArchiveSize(r io.ReaderAt, size int64) int64 {
	toc, _, err := estargz.OpenFooter(io.NewSectionReader(r, 0, size))
	if err != nil || toc <= 0 || toc >= size {
		return size
	}
	return toc
}

// maxZstdWindow bounds the memory that a foreign zstd stream can ask for, in bytes. The format
// recommends that decoders support 8 MiB (RFC 8878, 3.1.1.1.2); its own tool goes up to 128 MiB.
const maxZstdWindow = 128 << 20

// NewDecompressor returns the uncompressed form of r. The form is recognised by its first bytes,
// whatever the media type says. Close must be called: it frees memory, and ends the process that may
// do the work. It leaves r open, and nothing reads r afterwards.
func NewDecompressor(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return newGunzip(br)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		d, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	default:
		return io.NopCloser(br), nil
	}
}
