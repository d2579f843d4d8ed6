package solver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	cfs "github.com/containerd/continuity/fs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/snapshot"
)

// maxRead bounds what one ReadFile returns: it has to fit into a message.
const maxRead = 16 << 20

// browse mounts the tree for reading and calls fn with the folder.
func (r *reference) browse(ctx context.Context, fn func(root string) error) error {
	return r.use(ctx, func(ref *cache.Ref) (err error) {
		if ref == nil {
			empty, err := os.MkdirTemp("", "buildkit-empty")
			if err != nil {
				return err
			}
			defer os.Remove(empty)
			return fn(empty)
		}
		m, err := ref.Mount(ctx, true, cache.Access{Sessions: r.job.sessions, Blobs: r.job.sched})
		if err != nil {
			return err
		}
		root, release, err := snapshot.MountTemp(m)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
		return fn(root)
	})
}

// resolve returns the path on the host of a path in a tree, with the tree as its world: links
// that leave it lead back to its root. The last element is followed only if follow.
func resolve(root, p string, follow bool) (string, error) {
	p = path.Join("/", p)
	var host string
	var err error
	if follow {
		host, err = cfs.RootPath(root, p)
	} else {
		if host, err = cfs.RootPath(root, path.Dir(p)); err == nil {
			host = filepath.Join(host, path.Base(p))
		}
	}
	if err != nil {
		return "", inTree(err, p)
	}
	return host, nil
}

// inTree hides where a tree is mounted from an error.
func inTree(err error, p string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return &fs.PathError{Op: pe.Op, Path: p, Err: pe.Err}
	}
	return err
}

func readFile(root string, req gateway.ReadRequest) ([]byte, error) {
	host, err := resolve(root, req.Filename, true)
	if err != nil {
		return nil, err
	}
	st, err := os.Lstat(host)
	var pe *fs.PathError
	if errors.As(err, &pe) {
		// The look before the opening is nothing that callers know of.
		return nil, &fs.PathError{Op: "open", Path: req.Filename, Err: pe.Err}
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		// Anything else could block or has no content.
		if st.IsDir() {
			return nil, fmt.Errorf("read %s: is a directory", req.Filename)
		}
		return nil, fmt.Errorf("read %s: not a regular file", req.Filename)
	}
	f, err := os.Open(host)
	if err != nil {
		return nil, inTree(err, req.Filename)
	}
	defer f.Close()
	offset, length := int64(0), st.Size()
	if req.Range != nil {
		offset, length = req.Range.Offset, req.Range.Length
		if offset < 0 || length < 0 {
			return nil, fmt.Errorf("read %s: invalid range %d+%d", req.Filename, offset, length)
		}
		length = min(length, max(0, st.Size()-offset))
	}
	if length > maxRead {
		return nil, fmt.Errorf("read %s: %d bytes are more than a message holds", req.Filename, length)
	}
	data := make([]byte, length)
	n, err := io.ReadFull(io.NewSectionReader(f, offset, length), data)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, inTree(err, req.Filename)
	}
	return data[:n], nil
}

func readDir(root string, req gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	host, err := resolve(root, req.Path, true)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return nil, inTree(err, req.Path)
	}
	var out []*fstypes.Stat
	for _, e := range entries {
		if req.IncludePattern != "" {
			ok, err := path.Match(req.IncludePattern, e.Name())
			if err != nil {
				return nil, fmt.Errorf("include pattern %q: %w", req.IncludePattern, err)
			}
			if !ok {
				continue
			}
		}
		st, err := fsutil.Stat(filepath.Join(host, e.Name()))
		if err != nil {
			return nil, inTree(err, path.Join(req.Path, e.Name()))
		}
		st.Path = e.Name()
		out = append(out, st)
	}
	return out, nil
}

func statFile(root, p string) (*fstypes.Stat, error) {
	host, err := resolve(root, p, false)
	if err != nil {
		return nil, err
	}
	st, err := fsutil.Stat(host)
	if err != nil {
		return nil, inTree(err, p)
	}
	st.Path = path.Base(path.Join("/", p))
	return st, nil
}
