// Package folder holds what the snapshotters share about folders on disk.
package folder

import (
	"os"
	"path/filepath"
	"strings"
)

// Removed is what the names of folders begin with that only wait for being removed.
const Removed = "rm-"

// Sweep sets aside every entry of dir that is not known, what a crash has left, by giving it a
// name that begins with Removed: removing it may take long, and until then it would be in the way
// of a new one of its name. It is called before anything else uses dir.
func Sweep(dir string, known map[string]struct{}) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := known[e.Name()]; ok || strings.HasPrefix(e.Name(), Removed) {
			continue
		}
		aside, err := os.MkdirTemp(dir, Removed)
		if err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(aside, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
