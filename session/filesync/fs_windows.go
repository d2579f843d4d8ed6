package filesync

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tonistiigi/fsutil/types"
)

// openDirAt opens a directory by its full path.
func openDirAt(_ *os.File, full string) (*os.File, error) { return os.Open(full) }

// describe returns the description of the entry at rel. Everything is executable, which the system
// has no notion of.
func (w *walker) describe(_ *os.File, rel string) (d described) {
	full := filepath.Join(w.base, rel)
	info, err := os.Lstat(full)
	if err != nil {
		return described{err: err}
	}
	perm := info.Mode().Perm()&0o755 | 0o111
	st := &types.Stat{
		Path:    rel,
		Mode:    uint32(info.Mode()&^fs.ModePerm | perm),
		ModTime: info.ModTime().UnixNano(),
	}
	if !info.IsDir() {
		st.Size = info.Size()
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		st.Linkname, err = os.Readlink(full)
	}
	return described{st: st, err: err}
}
