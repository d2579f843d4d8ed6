//go:build linux

package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/upload"
	"github.com/openbuildkit/buildkit/snapshot"
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
func (i *instance) file(v *version) file {
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
	if err := checkStatus(resp.StatusCode); err != nil {
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
	return v, err
}

// save makes a tree of what is read and returns what is known of it. Content that does not have
// the digests that are wanted is thrown away.
func (i *instance) save(ctx context.Context, v *version, r io.Reader, want ...digest.Digest) (*version, error) {
	v.File = i.file(v)
	ref, err := i.tree(ctx, func(dir string) error {
		return i.write(dir, v, r, want)
	})
	if err != nil {
		return nil, err
	}
	v.ID = ref.ID()
	return v, errors.Join(i.note(ref, v), ref.Release(ctx))
}

// tree makes a tree with fill.
func (i *instance) tree(ctx context.Context, fill func(dir string) error) (*cache.Ref, error) {
	ref, err := i.src.cfg.Cache.New(ctx, nil, cache.Access{}, cache.NewOpt{
		Description: cache.Description{Text: "http url " + i.id.String()},
	})
	if err != nil {
		return nil, err
	}
	if err := fillTree(ctx, ref, fill); err != nil {
		return nil, errors.Join(err, ref.Discard(context.WithoutCancel(ctx)))
	}
	return ref.Commit(ctx)
}

func fillTree(ctx context.Context, ref *cache.MutableRef, fill func(dir string) error) (err error) {
	m, err := ref.Mount(ctx, false)
	if err != nil {
		return err
	}
	dir, unmount, err := snapshot.MountTemp(m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	return fill(dir)
}

// write makes the file in dir and completes v.
func (i *instance) write(dir string, v *version, r io.Reader, want []digest.Digest) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.OpenFile(v.File.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, defaultPerm)
	if err != nil {
		return fmt.Errorf("make the file of %s: %w", i.id, err)
	}
	if err := i.fill(f, v, r, want); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Close(), root.Chtimes(v.File.Name, time.Time{}, v.modified()))
}

// fill writes and describes a file.
func (i *instance) fill(f *os.File, v *version, r io.Reader, want []digest.Digest) error {
	sum := digest.SHA256.Digester()
	w := io.MultiWriter(f, sum.Hash())
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
	// The owner first: changing it takes bits off the mode.
	if err := f.Chown(v.File.UID, v.File.GID); err != nil {
		return err
	}
	return f.Chmod(fileMode(v.File.Perm))
}

// fileMode returns the mode of which perm is the form of Unix.
func fileMode(perm uint32) os.FileMode {
	const setuid, setgid, sticky = 0o4000, 0o2000, 0o1000
	m := os.FileMode(perm).Perm()
	for bit, flag := range map[uint32]os.FileMode{setuid: os.ModeSetuid, setgid: os.ModeSetgid, sticky: os.ModeSticky} {
		if perm&bit != 0 {
			m |= flag
		}
	}
	return m
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
	return look(ctx, ref, fn)
}

// look opens the file of a tree, which holds it alone, for fn.
func look(ctx context.Context, ref *cache.Ref, fn func(io.Reader) error) (err error) {
	m, err := ref.Mount(ctx, true, cache.Access{})
	if err != nil {
		return err
	}
	dir, unmount, err := snapshot.MountTemp(m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) != 1 {
		return fmt.Errorf("a tree of one file holds %d", len(entries))
	}
	f, err := os.OpenInRoot(dir, entries[0].Name())
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(f)
}
