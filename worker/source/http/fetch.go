//go:build linux

package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"os"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/upload"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
)

// buffer is how much of a file is in memory at a time, in bytes.
const buffer = 128 << 10

// MismatchError says that a file is not the one that was meant.
type MismatchError struct {
	// URL is empty in the error of a fetch; the other has it without credentials.
	URL       string
	Got, Want digest.Digest
}

// Error returns the text that clients know.
func (e *MismatchError) Error() string {
	if e.URL != "" {
		return fmt.Sprintf("digest mismatch for %s: %s (expected: %s)", e.URL, e.Got, e.Want)
	}
	return fmt.Sprintf("digest mismatch %s: %s", e.Got, e.Want)
}

// Fetch returns the tree. A file that should be signed is checked whether it was here or not.
func (i *instance) Fetch(ctx context.Context) (*cache.Ref, error) {
	ref, err := i.fetch(ctx)
	if err != nil || i.id.Signature == nil {
		return ref, err
	}
	if err := i.verify(ctx, ref); err != nil {
		return nil, errors.Join(err, ref.Release(context.WithoutCancel(ctx)))
	}
	return ref, nil
}

func (i *instance) fetch(ctx context.Context) (*cache.Ref, error) {
	if err := i.authorize(ctx); err != nil {
		return nil, err
	}
	want := i.id.Checksum
	if want == "" {
		v, err := i.resolve(ctx)
		if err != nil {
			return nil, err
		}
		want = v.Digest
	}
	known, err := i.known(ctx)
	if err != nil {
		return nil, err
	}
	if i.id.upload() && i.found != nil {
		known = append(known, i.found)
	}
	ref, err := i.reuse(ctx, want, known)
	if ref != nil || err != nil {
		return ref, err
	}
	v, err := i.get(ctx, want)
	if err != nil {
		return nil, err
	}
	return i.src.cfg.Cache.Get(ctx, v.ID)
}

// reuse returns a tree with the content among what is here; nil if there is none.
func (i *instance) reuse(ctx context.Context, want digest.Digest, known []*version) (*cache.Ref, error) {
	var other *version
	for _, v := range known {
		if !v.has(want) {
			continue
		}
		if v.File == i.file(v) {
			ref, err := i.src.cfg.Cache.Get(ctx, v.ID)
			if ref != nil || !missing(err) {
				return ref, err
			}
			continue
		}
		other = v
	}
	if other == nil {
		return nil, nil
	}
	ref, err := i.copy(ctx, other)
	if missing(err) {
		return nil, nil
	}
	return ref, err
}

func missing(err error) bool {
	return errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrLost)
}

// file is how the op wants the file of a version.
func (i *instance) file(v *version) tree.File {
	f := i.id.file
	f.Name = i.id.name(v.Disposition)
	return f
}

// get fetches the content that is wanted. A file that changes in the course of a build is not
// followed.
func (i *instance) get(ctx context.Context, want digest.Digest) (*version, error) {
	if i.id.upload() {
		v, err := i.receive(ctx)
		if err == nil && !v.has(want) {
			err = &MismatchError{Got: v.Digest, Want: want}
		}
		return v, err
	}
	c := i.client()
	resp, err := c.do(ctx, nethttp.MethodGet, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := i.judge(resp.StatusCode); err != nil {
		return nil, err
	}
	return i.save(ctx, newVersion(resp), resp.Body, want)
}

// receive reads a stream of the client. It can be read once.
func (i *instance) receive(ctx context.Context) (v *version, err error) {
	err = i.src.cfg.Sessions.Any(ctx, i.env.Sessions, func(ctx context.Context, c *session.Caller) error {
		r, err := upload.Open(ctx, c, i.id.URL)
		if err != nil {
			return err
		}
		defer r.Close()
		v, err = i.save(ctx, &version{Size: -1}, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("upload %s: %w", path.Base(i.id.URL.Path), err)
	}
	return v, nil
}

// save makes a tree of what is read and returns what is known of it. Content that does not have
// the digests that are wanted is thrown away.
func (i *instance) save(ctx context.Context, v *version, r io.Reader, want ...digest.Digest) (*version, error) {
	v.File = i.file(v)
	desc := cache.Description{Text: "http url " + i.id.String()}
	ref, err := tree.New(ctx, i.src.cfg.Cache, cache.Access{}, desc, func(dir string) error {
		return v.File.Write(dir, v.modified(), func(w io.Writer) error { return i.fill(w, v, r, want) })
	})
	if err != nil {
		return nil, err
	}
	v.ID = ref.ID()
	return v, errors.Join(i.note(ref, v), ref.Release(ctx))
}

// fill writes a file and completes v.
func (i *instance) fill(w io.Writer, v *version, r io.Reader, want []digest.Digest) error {
	sum := digest.SHA256.Digester()
	shown := newProgress(i.env.Scope, v.File.Name, v.Size)
	defer shown.end()
	w = io.MultiWriter(w, sum.Hash(), shown)
	var other digest.Digester
	if c := i.id.Checksum; c != "" && c.Algorithm() != digest.SHA256 {
		other = c.Algorithm().Digester()
		w = io.MultiWriter(w, other.Hash())
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, buffer)); err != nil {
		return err
	}
	v.Digest = sum.Digest()
	if other != nil {
		v.Checksum = other.Digest()
	}
	for _, dgst := range want {
		if !v.has(dgst) {
			got := v.Digest
			if other != nil {
				got = v.Checksum
			}
			return &MismatchError{Got: got, Want: dgst}
		}
	}
	return nil
}

// copy makes the tree of the op out of that of another op with the same content.
func (i *instance) copy(ctx context.Context, from *version) (*cache.Ref, error) {
	v := *from
	err := i.read(ctx, from, func(r io.Reader) error {
		_, err := i.save(ctx, &v, r, from.Digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	return i.src.cfg.Cache.Get(ctx, v.ID)
}

// read opens the file of a version for fn.
func (i *instance) read(ctx context.Context, v *version, fn func(io.Reader) error) (err error) {
	ref, err := i.src.cfg.Cache.Get(ctx, v.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ref.Release(context.WithoutCancel(ctx))) }()
	return tree.OpenFile(ctx, ref, func(f *os.File) error { return fn(f) })
}
