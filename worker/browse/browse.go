// Package browse reads files, folders and attributes of a tree that is mounted on the host, for
// those who look into a tree without running anything in it: frontends, and debuggers that look
// into a container.
//
// The tree is somebody else's and may be changed meanwhile by processes that run in it. Links lead
// to where they lead within it. Errors name paths as the caller gave them. What is returned is
// bounded by what fits into a message of the gateway API; nothing is written.
package browse

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/worker/internal/beneath"
)

// maxRead bounds what one call returns, in bytes: it has to fit into a message.
const maxRead = 16 << 20

// Tree is a tree. It may be used concurrently.
type Tree struct{ root *beneath.Root }

// Open opens the tree that is mounted on the folder dir of the host or, if part is not empty, the
// folder part of that tree. The caller closes it.
func Open(dir, part string) (*Tree, error) {
	root, err := beneath.Open(dir)
	if err != nil {
		return nil, err
	}
	if beneath.Clean(part) == "/" {
		return &Tree{root}, nil
	}
	defer root.Close()
	f, err := root.Handle(part, false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sub, err := beneath.Open(inFolder(f, "."))
	if err != nil {
		return nil, named(err, "open", part)
	}
	return &Tree{sub}, nil
}

// Close ends the use of the tree.
func (t *Tree) Close() error { return t.root.Close() }

// Range is a part of a file in bytes.
type Range struct{ Offset, Length int64 }

// ReadFile returns the regular file p, or the part of it that is within, as far as it is there.
func (t *Tree) ReadFile(p string, within *Range) ([]byte, error) {
	f, err := t.root.OpenFile(p, unix.O_RDONLY, 0)
	if err != nil {
		return nil, named(err, "open", p)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, named(err, "stat", p)
	case st.IsDir():
		return nil, fmt.Errorf("read %s: is a directory", p)
	case !st.Mode().IsRegular():
		// Anything else could block or has no content.
		return nil, fmt.Errorf("read %s: not a regular file", p)
	}
	offset, length := int64(0), st.Size()
	if within != nil {
		offset, length = within.Offset, within.Length
		if offset < 0 || length < 0 {
			return nil, status.New(codes.InvalidArgument, fmt.Sprintf("read %s: invalid range %d+%d", p, offset, length))
		}
		length = min(length, max(0, st.Size()-offset))
	}
	if length > maxRead {
		return nil, tooMuch("read %s: %d bytes are more than a message holds", p, length)
	}
	data := make([]byte, length)
	n, err := io.ReadFull(io.NewSectionReader(f, offset, length), data)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, named(err, "read", p)
	}
	return data[:n], nil
}

// ReadDir lists the folder p, sorted by name. pattern, if not empty, picks names as path.Match does.
func (t *Tree) ReadDir(p, pattern string) ([]*types.Stat, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, status.New(codes.InvalidArgument, fmt.Sprintf("include pattern %q: %v", pattern, err))
	}
	f, err := t.root.OpenFile(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, named(err, "open", p)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, named(err, "read", p)
	}
	slices.Sort(names)
	var out []*types.Stat
	size := 0
	for _, name := range names {
		// The pattern is a good one.
		if ok, _ := path.Match(pattern, name); pattern != "" && !ok {
			continue
		}
		st, err := fsutil.Stat(inFolder(f, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the folder was read
		}
		if err != nil {
			return nil, named(err, "stat", path.Join(p, name))
		}
		st.Path = name
		if size += proto.Size(st); size > maxRead {
			return nil, tooMuch("read %s: the entries are more than a message holds", p)
		}
		out = append(out, st)
	}
	return out, nil
}

// Stat describes p. A link at its end is not followed.
func (t *Tree) Stat(p string) (*types.Stat, error) {
	parent, name, err := t.root.Parent(p)
	if err != nil {
		return nil, named(err, "stat", p)
	}
	defer parent.Close()
	st, err := fsutil.Stat(inFolder(parent, name))
	if err != nil {
		return nil, named(err, "lstat", p)
	}
	st.Path = path.Base(beneath.Clean(p))
	return st, nil
}

// inFolder returns a path of the host that leads to name in an open folder, and nowhere else
// whatever becomes of the folder's path. A link of that name is not followed by what does not
// follow links.
func inFolder(f *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), strings.TrimPrefix(name, "/"))
}

// named returns an error of the system as one of op on p: the path that it has is one of ours.
func named(err error, op, p string) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return &fs.PathError{Op: op, Path: p, Err: errno}
	}
	return err
}

func tooMuch(format string, args ...any) error {
	return status.New(codes.ResourceExhausted, fmt.Sprintf(format, args...))
}
