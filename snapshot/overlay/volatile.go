package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// A volatile overlay does not write all of the file system that it lies on to the disk when it is
// unmounted, which every step would wait for. What a tree's files need to survive a power failure
// is the business of who stores its record: package cache brings many trees to disk at once and
// believes none of them before.
const volatileOption = "volatile"

// volatileWorks finds out whether the kernel knows the option, by mounting an overlay with it.
func volatileWorks(root string, options []string) (works bool, err error) {
	dir, err := os.MkdirTemp(root, "probe-")
	if errors.Is(err, unix.ENOSPC) {
		return false, nil // it is only slower without
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	names := map[string]string{}
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		names[name] = filepath.Join(dir, name)
		if err := os.Mkdir(names[name], 0o700); err != nil {
			return false, err
		}
	}
	all := append([]string{"lowerdir=" + names["lower"], "upperdir=" + names["upper"], "workdir=" + names["work"], volatileOption}, options...)
	if unix.Mount("overlay", names["merged"], "overlay", 0, strings.Join(all, ",")) != nil {
		return false, nil
	}
	return true, unix.Unmount(names["merged"], 0)
}

// makeVolatile adds the option to a mount that is written to. The kernel marks the work folder of
// a volatile overlay so that it is not mounted again after a crash; here the mark means nothing,
// and is removed.
func makeVolatile(m *mount.Mount) error {
	for _, o := range m.Options {
		work, ok := strings.CutPrefix(o, "workdir=")
		if !ok {
			continue
		}
		if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
			return fmt.Errorf("prepare %s: %w", work, err)
		}
		m.Options = append(m.Options, volatileOption)
		return nil
	}
	return nil
}
