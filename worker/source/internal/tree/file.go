//go:build linux

package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

const (
	// defaultPerm is the mode of a file that the op gives none.
	defaultPerm = 0o600
	// maxName is the longest name of a file in bytes.
	maxName = 255
	// maxID is the highest id of a user or group; the next one means that nothing is changed.
	maxID = 1<<32 - 2
)

// File is how a file is put into its tree. Its JSON form is stored beside cache records.
type File struct {
	// Name is empty if the op leaves it to others.
	Name string `json:"name,omitempty"`
	// Perm are the bits of a mode, as Unix has them.
	Perm     uint32 `json:"perm"`
	UID, GID int
}

// ParseFile reads the attributes http.filename, perm, uid and gid; others are ignored.
func ParseFile(attrs map[string]string) (File, error) {
	f := File{Name: attrs[pb.AttrHTTPFilename], Perm: defaultPerm}
	if f.Name != "" && !IsFileName(f.Name) {
		return f, fmt.Errorf("invalid %s %q", pb.AttrHTTPFilename, f.Name)
	}
	if v := attrs[pb.AttrHTTPPerm]; v != "" {
		perm, err := strconv.ParseUint(v, 0, 32)
		if err != nil || perm > 0o7777 {
			return f, fmt.Errorf("invalid %s %q", pb.AttrHTTPPerm, v)
		}
		f.Perm = uint32(perm)
	}
	for key, n := range map[string]*int{pb.AttrHTTPUID: &f.UID, pb.AttrHTTPGID: &f.GID} {
		if v := attrs[key]; v != "" {
			i, err := strconv.ParseUint(v, 0, 32)
			if err != nil || i > maxID {
				return f, fmt.Errorf("invalid %s %q", key, v)
			}
			*n = int(i)
		}
	}
	return f, nil
}

// IsFileName tells whether a file in a directory can have the name.
func IsFileName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= maxName && !strings.ContainsAny(name, "/\x00")
}

// Write makes the file in dir, with what fill writes.
func (f File) Write(dir string, modified time.Time, fill func(io.Writer) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	out, err := root.OpenFile(f.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, defaultPerm)
	if err != nil {
		return err
	}
	if err = fill(out); err == nil {
		// The owner first: changing it takes bits off the mode.
		err = errors.Join(out.Chown(f.UID, f.GID), out.Chmod(fileMode(f.Perm)))
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return root.Chtimes(f.Name, time.Time{}, modified)
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
