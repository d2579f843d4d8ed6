package filesync

import (
	"io/fs"
	"os"
	"time"
)

// handle is an open file that one goroutine uses.
type handle struct{ *os.File }

// openAt opens a file that lies in d under name for reading.
func openAt(d *dirHandle, name string) (*handle, error) {
	return newHandle(d.root.Open(name))
}

// createAt makes a file in d for writing, which must not be there yet.
func createAt(d *dirHandle, name string, perm fs.FileMode) (*handle, error) {
	return newHandle(d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm))
}

func newHandle(f *os.File, err error) (*handle, error) {
	if err != nil {
		return nil, err
	}
	return &handle{f}, nil
}

// changed is not known.
func (h *handle) changed() time.Time { return time.Time{} }
