// Package blob holds what the cache knows of layer blobs: where one that is not here can be
// fetched from, and which compressed forms one layer has.
//
// A blob is lazy when its descriptor is known and its bytes are not in the local content store.
// Whoever resolved it (an image source, a remote cache) offers a Source for it to the build that
// asked; the source lives as long as that build and serves nobody else, because it reads with the
// build's own credentials. The package moves bytes into and out of the content store; it mounts
// nothing and knows no registry protocol (that is blob/registry).
package blob

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
)

// ErrLost says that bytes which a record promised are neither here nor to be had from any source
// of the requester. The reader drops the record and has it built again.
var ErrLost = errors.New("content is lost")

// Source is a place that a lazy blob can be read from.
type Source interface {
	// Open returns the bytes of the blob from offset on. Reads end with an error when ctx ends.
	// The caller closes the reader, not while it reads. It may be called several times and
	// concurrently.
	Open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
	// Scope is where progress of the transfer is shown: the vertex that resolved the blob.
	Scope() event.Scope
	// Repository names the registry repository that holds the blob, host included, so that a
	// push to the same registry can mount it; empty if there is none.
	Repository() string
	// HasProved reports whether NoteProof was called for the blob: whether the source has shown that it has the
	// bytes. Sources embed Proofs for both.
	HasProved(dgst digest.Digest) bool
	NoteProof(dgst digest.Digest)
}

// Finder finds the sources that a request may use.
type Finder interface {
	// Find returns the sources of a blob, best first; empty if there is none.
	Find(dgst digest.Digest) []Source
}

// Sources is a Finder that is filled while a build resolves things. The zero value is ready for
// use; methods may be called concurrently.
type Sources struct {
	mu sync.Mutex
	m  map[digest.Digest][]Source
}

// Add offers src for the blob dgst. Adding the same value twice has no effect.
func (s *Sources) Add(dgst digest.Digest, src Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[digest.Digest][]Source{}
	}
	if !slices.Contains(s.m[dgst], src) {
		s.m[dgst] = append(s.m[dgst], src)
	}
}

// Find returns the sources of a blob in the order they were added.
func (s *Sources) Find(dgst digest.Digest) []Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.m[dgst])
}

// Finders is a Finder over several, asked in order.
type Finders []Finder

// Find returns the sources of all finders.
func (fs Finders) Find(dgst digest.Digest) []Source {
	var all []Source
	for _, f := range fs {
		if f != nil {
			all = append(all, f.Find(dgst)...)
		}
	}
	return all
}
