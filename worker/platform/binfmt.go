package platform

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// binfmtDir is where binfmt_misc is usually mounted.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// errHidden says that the kernel's registrations cannot be read from here.
var errHidden = errors.New("the registrations of binfmt_misc cannot be read")

// registration is a format that the kernel has an interpreter for.
type registration struct {
	interpreter string
	enabled     bool
	// fixed is flag F: the interpreter was opened when it was registered.
	fixed       bool
	offset      int
	magic, mask []byte
}

// matches tells whether the kernel takes file for one of the format. file is at least its beginning.
func (r *registration) matches(file []byte) bool {
	if len(r.magic) == 0 || len(file) < r.offset+len(r.magic) {
		return false
	}
	for i, want := range r.magic {
		mask := byte(0xff)
		if i < len(r.mask) {
			mask = r.mask[i]
		}
		if (file[r.offset+i]^want)&mask != 0 {
			return false
		}
	}
	return true
}

// parseRegistration reads what the kernel shows of one (Documentation/admin-guide/binfmt-misc.rst
// and fs/binfmt_misc.c of Linux). Formats that are told by the end of a name have no magic.
func parseRegistration(text []byte) (*registration, error) {
	r := &registration{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch key {
		case "enabled":
			r.enabled = true
		case "interpreter":
			r.interpreter = value
		case "flags:":
			r.fixed = strings.Contains(value, "F")
		case "offset":
			r.offset, err = strconv.Atoi(value)
		case "magic":
			r.magic, err = hex.DecodeString(value)
		case "mask":
			r.mask, err = hex.DecodeString(value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if r.offset < 0 {
		return nil, fmt.Errorf("offset %d", r.offset)
	}
	return r, nil
}

// readBinfmt returns the registrations of the kernel; errHidden if there may be some that cannot be
// seen. They are none if it has no binfmt_misc.
func readBinfmt() ([]*registration, error) {
	dir := os.DirFS(binfmtDir)
	if _, err := fs.Stat(dir, "status"); err != nil {
		mounted, err := mountBinfmt()
		if err != nil {
			return nil, err
		}
		if mounted == nil {
			return nil, nil
		}
		defer mounted.Close()
		dir = os.DirFS(fmt.Sprintf("/proc/self/fd/%d", mounted.Fd()))
	}
	return registrations(dir)
}

// mountBinfmt mounts the file system where nobody sees it, which leaves nothing behind when the file
// is closed. It is nil if the kernel has none. In a user namespace of its own a mount would be a new
// and empty list that hides the host's from the kernel, so there it is not tried.
func mountBinfmt() (*os.File, error) {
	if userns.RunningInUserNS() {
		return nil, errHidden
	}
	fsfd, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHidden, err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("%w: %w", errHidden, err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHidden, err)
	}
	return os.NewFile(uintptr(fd), "binfmt_misc"), nil
}

// registrations reads those of a mounted binfmt_misc. One that goes meanwhile, or that is not
// understood, is left out.
func registrations(dir fs.FS) ([]*registration, error) {
	status, err := fs.ReadFile(dir, "status")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHidden, err)
	}
	all := bytes.HasPrefix(status, []byte("enabled"))
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHidden, err)
	}
	var out []*registration
	for _, e := range entries {
		if e.Name() == "status" || e.Name() == "register" {
			continue
		}
		text, err := fs.ReadFile(dir, e.Name())
		if err != nil {
			continue
		}
		r, err := parseRegistration(text)
		if err != nil {
			continue
		}
		r.enabled = r.enabled && all
		out = append(out, r)
	}
	return out, nil
}
