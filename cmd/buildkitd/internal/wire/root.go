package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/continuity"
	"github.com/gofrs/flock"
)

const (
	// lockFile is in the root, where BuildKit has its own: the two exclude each other.
	lockFile = "buildkitd.lock"
	// stateDir is our folder in the root. What else is there is another's.
	stateDir = "openbuildkit"
	// formatFile in stateDir names the format of what is in it.
	formatFile = "format"
	// format is counted up when an older daemon could not read what a newer one wrote.
	format = "1"
)

// state is the folder of a daemon, held by this process.
type state struct {
	dir  string
	lock *flock.Flock
}

// openState makes and locks the folder below root.
func openState(root string) (*state, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, stateDir)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("failed to create %s: %w", root, err)
	}
	lock := flock.New(filepath.Join(root, lockFile))
	switch locked, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("could not lock %s: %w", lock.Path(), err)
	case !locked:
		return nil, fmt.Errorf("could not lock %s, another instance running?", lock.Path())
	}
	s := &state{dir: dir, lock: lock}
	if err := s.checkFormat(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *state) checkFormat() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.dir, formatFile)
	found, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return continuity.AtomicWriteFile(path, []byte(format+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(found)); got != format {
		return fmt.Errorf("state in %s has format %q, this daemon reads %q: use a daemon of its version, another --root, or delete it", s.dir, got, format)
	}
	return nil
}

// sub returns the path of something in the folder.
func (s *state) sub(name string) string { return filepath.Join(s.dir, name) }

func (s *state) close() error { return s.lock.Unlock() }
