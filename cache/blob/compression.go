package blob

import "fmt"

// Compression is the form in which a layer is stored as a blob.
type Compression string

// The forms of layers that are known.
const (
	Uncompressed Compression = "uncompressed"
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
	EStargz      Compression = "estargz"
)

// CompressionOpt says in which form layers are wanted.
type CompressionOpt struct {
	Type Compression
	// Level is the level of the compressor as CheckLevel allows it; nil is the default.
	Level *int
	// Force converts layers that came from elsewhere in another form; otherwise those are kept.
	Force bool
	// DockerTypes asks for Docker media types instead of those of OCI.
	DockerTypes bool
}

// highest has the highest level of each form that has levels; the lowest is 0.
var highest = map[Compression]int{Gzip: 9, EStargz: 9, Zstd: 22}

// CheckLevel reports a form that is not known and a level that a form does not have. Nil, and any
// level of Uncompressed, which has none, is fine.
func CheckLevel(c Compression, level *int) error {
	top, ok := highest[c]
	switch {
	case c == Uncompressed:
		return nil
	case !ok:
		return fmt.Errorf("unsupported compression type %s", c)
	case level != nil && (*level < 0 || *level > top):
		return fmt.Errorf("compression level %d of %s is out of range: 0 to %d", *level, c, top)
	}
	return nil
}

// SameLevel reports whether two levels of a form, which has both, give the same bytes.
func SameLevel(c Compression, a, b *int) bool {
	switch c {
	case Uncompressed:
		return true
	case Zstd:
		return zstdSpeed(a) == zstdSpeed(b)
	default:
		return deflateLevel(a) == deflateLevel(b)
	}
}
