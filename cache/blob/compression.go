package blob

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
	// Level is the level of the compressor; nil is the library's default.
	Level *int
	// Force converts layers that exist in another form already; otherwise those are kept.
	Force bool
	// DockerTypes asks for Docker media types instead of those of OCI.
	DockerTypes bool
}
