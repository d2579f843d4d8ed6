package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/openbuildkit/buildkit/solver/feed"
)

// blobs is a store as those of content, for reading.
type blobs struct{ s *Store }

// Info describes a blob. Those that are not there are errdefs.ErrNotFound.
func (b blobs) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	r, err := b.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	if err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: dgst, Size: r.Size()}, r.Close()
}

// ReaderAt opens a blob. It can be read to its end also if it is deleted meanwhile. One that the disk has
// damaged is an errdefs.ErrDataLoss.
func (b blobs) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	if b.s.table == nil || desc.Digest.Algorithm() != digest.Canonical {
		return nil, missing(desc.Digest)
	}
	r, err := b.open(desc)
	if !errors.Is(err, errdefs.ErrNotFound) {
		return r, err
	}
	// A build may have ended whose client knows what is about to be kept of it.
	if err := b.s.awaitAll(ctx); err != nil {
		return nil, err
	}
	return b.open(desc)
}

func missing(dgst digest.Digest) error {
	return fmt.Errorf("content digest %s: %w", dgst, errdefs.ErrNotFound)
}

// damaged is the error of reading a blob that is not what it was.
func damaged(dgst digest.Digest) error {
	return fmt.Errorf("content digest %s: what is stored is something else: %w", dgst, errdefs.ErrDataLoss)
}

func (b blobs) open(desc ocispec.Descriptor) (content.ReaderAt, error) {
	data, err := b.s.table.short(desc.Digest)
	if err != nil {
		return nil, err
	}
	if data != nil {
		if digest.FromBytes(data) != desc.Digest {
			return nil, damaged(desc.Digest)
		}
		return short{bytes.NewReader(data)}, nil
	}
	f, err := os.Open(b.s.table.blobPath(desc.Digest))
	if os.IsNotExist(err) {
		return nil, missing(desc.Digest)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil {
		err = b.s.table.check(f, desc.Digest)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return long{f, st.Size()}, nil
}

type short struct{ *bytes.Reader }

func (short) Close() error { return nil }

type long struct {
	*os.File
	size int64
}

func (l long) Size() int64 { return l.size }

// short returns a short blob, nil if there is none.
func (t *table) short(dgst digest.Digest) (data []byte, err error) {
	t.mu.Lock()
	data = t.blobs[dgst]
	t.mu.Unlock()
	if data != nil {
		return data, nil
	}
	err = t.view(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(blobBucket).Get([]byte(dgst)); v != nil {
			data = append([]byte{}, v...)
		}
		return nil
	})
	return data, err
}

// Replay calls emit with what a build told that has ended: messages as those of feed.Watch, with all output. An
// unknown build is a *NotFoundError.
func (s *Store) Replay(ctx context.Context, ref string, emit func(status []byte) error) error {
	if err := s.await(ctx, ref); err != nil {
		return err
	}
	rec := s.get(ref)
	if rec == nil {
		return &NotFoundError{Ref: ref}
	}
	if rec.GetLogs() == nil {
		return nil
	}
	r, err := s.Content().ReaderAt(ctx, ocispec.Descriptor{Digest: digest.Digest(rec.GetLogs().GetDigest())})
	if err != nil {
		return fmt.Errorf("logs of %s: %w", ref, err)
	}
	defer r.Close()
	return feed.Replay(r, r.Size(), func(status []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return emit(status)
	})
}

// Has tells whether a build has ended and has a record, or will have in a moment.
func (s *Store) Has(ref string) bool {
	s.mu.Lock()
	b := s.active[ref]
	ended := b != nil && b.ended
	s.mu.Unlock()
	return ended || s.get(ref) != nil
}
