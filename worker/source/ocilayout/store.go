package ocilayout

import (
	"context"
	"fmt"
	"io"

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
}

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
	err = s.any(ctx, func(c *session.Caller) error {
		info, err := content.NewStore(c, StorePrefix+s.name).Info(ctx, dgst)
		size = info.Size
		return err
	})
	return size, err
}

// any calls fn with the sessions until one serves. What fn starts may go on after it.
func (s *Store) any(ctx context.Context, fn func(c *session.Caller) error) error {
	err := s.sessions.Any(ctx, session.First(s.session, s.env.Sessions), func(_ context.Context, c *session.Caller) error {
		return fn(c)
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

func (s *Store) read(ctx context.Context, dgst digest.Digest, limit int64) ([]byte, error) {
	rc, err := s.Open(ctx, ocispec.Descriptor{Digest: dgst}, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, fmt.Errorf("oci-layout store %s: %w", s.name, err)
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
	err = s.any(ctx, func(c *session.Caller) (err error) {
		rc, err = content.Open(ctx, c, StorePrefix+s.name, desc.Digest, offset)
		return err
	})
	return rc, err
}

// Scope is where the transfer of a layer is shown.
func (s *Store) Scope() event.Scope { return s.env.Scope }

// Repository is none: nothing can be mounted from here.
func (s *Store) Repository() string { return "" }
