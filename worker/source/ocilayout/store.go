package ocilayout

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/manifest"
)

// StorePrefix begins the ids by which sessions know stores of images.
const StorePrefix = "oci:"

// Store is a store of a client in one build, as a reader of documents and a source of blobs. It may
// be used concurrently and needs no closing.
type Store struct {
	blob.Proofs

	sessions *session.Manager
	// session is asked first; it may be empty.
	session, name string
	env           source.Env

	mu sync.Mutex
	// served are the sessions that were read from last, wrong those whose bytes were wrong.
	served map[digest.Digest]string
	wrong  map[digest.Digest][]string
}

var (
	_ blob.Fallback = (*Store)(nil)
	_ blob.Blamer   = (*Store)(nil)
)

// NewStore returns the store of that name, of the named session if it has it, else of any of the
// build's.
func NewStore(sessions *session.Manager, sessionID, name string, env source.Env) *Store {
	return &Store{sessions: sessions, session: sessionID, name: name, env: env}
}

// image reads manifest and config of the platform, once in a build.
func (s *Store) image(ctx context.Context, id *Identifier) (*manifest.Image, error) {
	root := ocispec.Descriptor{Digest: id.Ref.Digest()}
	key := fmt.Sprintf("oci-layout %q %q %s %s", s.session, s.name, root.Digest, platforms.FormatAll(id.Platform))
	return source.Once(ctx, s.env.Memo, key, func(ctx context.Context) (*manifest.Image, error) {
		return manifest.Select(ctx, s, root, id.Platform)
	})
}

// Size returns the size of a blob in bytes, as the client says.
func (s *Store) Size(ctx context.Context, dgst digest.Digest) (size int64, err error) {
	err = s.any(ctx, dgst, func(c *session.Caller) error {
		info, err := content.NewStore(c, StorePrefix+s.name).Info(ctx, dgst)
		size = info.Size
		return err
	})
	return size, err
}

// holders are the sessions to ask for a blob: all but those whose bytes were wrong.
type holders struct {
	s    *Store
	dgst digest.Digest
}

// SessionIDs returns those of this moment.
func (h holders) SessionIDs() []string {
	ids := session.First(h.s.session, h.s.env.Sessions).SessionIDs()
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(h.s.wrong[h.dgst], id) })
}

// any calls fn with the sessions that may have a blob until one serves. What fn starts may go on after
// it.
func (s *Store) any(ctx context.Context, dgst digest.Digest, fn func(c *session.Caller) error) error {
	err := s.sessions.Any(ctx, holders{s, dgst}, func(_ context.Context, c *session.Caller) error {
		return c.Blame(fn(c))
	})
	if err != nil {
		return fmt.Errorf("oci-layout store %s: %w", s.name, err)
	}
	return nil
}

// Manifest reads a manifest or index.
func (s *Store) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return s.read(ctx, desc.Digest, manifest.MaxManifest)
}

// Config reads a config.
func (s *Store) Config(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return s.read(ctx, desc.Digest, manifest.MaxConfig)
}

// read reads a document from the first of the sessions that sends it as it should be.
func (s *Store) read(ctx context.Context, dgst digest.Digest, limit int64) (data []byte, err error) {
	err = s.any(ctx, dgst, func(c *session.Caller) (err error) {
		data, err = s.readFrom(ctx, c, dgst, limit)
		return err
	})
	return data, err
}

func (s *Store) readFrom(ctx context.Context, c *session.Caller, dgst digest.Digest, limit int64) ([]byte, error) {
	rc, err := content.Open(ctx, c, StorePrefix+s.name, dgst, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &manifest.FormatError{Digest: dgst, Reason: fmt.Sprintf("more than %d bytes", limit)}
	}
	if got := dgst.Algorithm().FromBytes(data); got != dgst {
		return nil, &manifest.FormatError{Digest: dgst, Reason: "the client sends " + got.String()}
	}
	return data, nil
}

// Open reads a blob from the first of the sessions that has it.
func (s *Store) Open(ctx context.Context, desc ocispec.Descriptor, offset int64) (rc io.ReadCloser, err error) {
	err = s.any(ctx, desc.Digest, func(c *session.Caller) (err error) {
		rc, err = content.Open(ctx, c, StorePrefix+s.name, desc.Digest, offset)
		if err == nil {
			s.serves(desc.Digest, c.ID())
		}
		return err
	})
	return rc, err
}

func (s *Store) serves(dgst digest.Digest, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served == nil {
		s.served = map[digest.Digest]string{}
	}
	s.served[dgst] = id
}

// Fallback passes over the session whose bytes were wrong, if there is another one.
func (s *Store) Fallback(_ context.Context, dgst digest.Digest) bool {
	s.mu.Lock()
	if id := s.served[dgst]; id != "" && !slices.Contains(s.wrong[dgst], id) {
		if s.wrong == nil {
			s.wrong = map[digest.Digest][]string{}
		}
		s.wrong[dgst] = append(s.wrong[dgst], id)
	}
	s.mu.Unlock()
	return len(holders{s, dgst}.SessionIDs()) > 0
}

// Blame returns the error of wrong bytes as one of the sessions that they are of. They may try again.
func (s *Store) Blame(dgst digest.Digest, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wrong := s.wrong[dgst]
	delete(s.wrong, dgst)
	return session.BlameAll(wrong, err)
}

// Scope is where the transfer of a layer is shown.
func (s *Store) Scope() event.Scope { return s.env.Scope }

// Repository is none: nothing can be mounted from here.
func (s *Store) Repository() string { return "" }
