//go:build linux

package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteChanges writes what has to be done to the tree lower to get the tree upper, as an archive,
// to w. An empty lower stands for the empty tree.
//
// Files are the same if type, size, owner, mode, times and extended attributes are; contents are
// read only where times have no fractions of a second and so prove nothing.
func WriteChanges(ctx context.Context, w io.Writer, lower, upper string) error {
	c := compare{ctx: ctx, lower: lower, upper: upper, out: newWriter(w)}
	if err := c.dir("", lower != ""); err != nil {
		return err
	}
	return c.out.close()
}

type compare struct {
	ctx          context.Context //nolint:containedctx // lives as long as the call that it came with
	lower, upper string
	out          *writer
	// pending are the folders on the way to the current entry that have not been written
	// because nothing in them has changed so far.
	pending []string
}

func (c *compare) dir(name string, both bool) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	var old []string
	var err error
	if both {
		if old, err = readNames(filepath.Join(c.lower, name)); err != nil {
			return err
		}
	}
	now, err := readNames(filepath.Join(c.upper, name))
	if err != nil {
		return err
	}
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && old[0] < now[0]:
			err = c.removed(path.Join(name, old[0]))
			old = old[1:]
		case len(old) == 0 || now[0] < old[0]:
			err = c.added(path.Join(name, now[0]))
			now = now[1:]
		default:
			err = c.kept(path.Join(name, now[0]))
			old, now = old[1:], now[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *compare) removed(name string) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.out.remove(name)
}

func (c *compare) added(name string) error {
	st, err := c.write(name)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	return c.dir(name, false)
}

// kept handles a name that both trees have.
func (c *compare) kept(name string) error {
	old, err := lstat(filepath.Join(c.lower, name))
	if err != nil {
		return err
	}
	now, err := lstat(filepath.Join(c.upper, name))
	if err != nil {
		return err
	}
	same, err := c.same(name, old, now)
	if err != nil {
		return err
	}
	if now.Mode&unix.S_IFMT != unix.S_IFDIR {
		if !same {
			_, err = c.write(name)
		}
		return err
	}
	both := old.Mode&unix.S_IFMT == unix.S_IFDIR
	if !same {
		if _, err := c.write(name); err != nil {
			return err
		}
		return c.dir(name, both)
	}
	c.pending = append(c.pending, name)
	depth := len(c.pending)
	if err := c.dir(name, both); err != nil {
		return err
	}
	if len(c.pending) == depth {
		c.pending = c.pending[:depth-1]
	}
	return nil
}

// flush writes the folders that the next entry is in.
func (c *compare) flush() error {
	for _, name := range c.pending {
		st, err := lstat(filepath.Join(c.upper, name))
		if err != nil {
			return err
		}
		if err := c.out.add(name, filepath.Join(c.upper, name), st); err != nil {
			return err
		}
	}
	c.pending = c.pending[:0]
	return nil
}

func (c *compare) write(name string) (*unix.Stat_t, error) {
	if err := c.flush(); err != nil {
		return nil, err
	}
	file := filepath.Join(c.upper, name)
	st, err := lstat(file)
	if err != nil {
		return nil, err
	}
	return st, c.out.add(name, file, st)
}

func (c *compare) same(name string, old, now *unix.Stat_t) (bool, error) {
	if old.Mode != now.Mode || old.Uid != now.Uid || old.Gid != now.Gid || old.Rdev != now.Rdev {
		return false, nil
	}
	a, b := filepath.Join(c.lower, name), filepath.Join(c.upper, name)
	oldAttrs, err := xattrs(a)
	if err != nil {
		return false, err
	}
	nowAttrs, err := xattrs(b)
	if err != nil {
		return false, err
	}
	if !maps.Equal(oldAttrs, nowAttrs) {
		return false, nil
	}
	if now.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true, nil
	}
	if old.Size != now.Size || old.Mtim != now.Mtim || old.Nlink != now.Nlink {
		return false, nil
	}
	switch now.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return sameLink(a, b)
	case unix.S_IFREG:
		if now.Mtim.Nsec == 0 && now.Size > 0 {
			return sameContent(a, b)
		}
	}
	return true, nil
}

func sameLink(a, b string) (bool, error) {
	x, err := os.Readlink(a)
	if err != nil {
		return false, err
	}
	y, err := os.Readlink(b)
	return x == y, err
}

func sameContent(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	x, y := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := io.ReadFull(f, x)
		m, err2 := io.ReadFull(g, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err = errors.Join(err, err2); err != nil {
			return false, err
		}
	}
}
