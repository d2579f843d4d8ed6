package lower

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// windows is the system whose paths have drives and backslashes.
const windows = "windows"

// systemDrive is the only drive of a container of Windows.
const systemDrive = "C:"

var (
	errUNC   = errors.New("UNC paths are not supported")
	errDrive = errors.New("The specified path is not on the system drive (C:)") //nolint:staticcheck // users and clients know this text
)

// slashed returns a path that is written for a system in the form that file trees have: with slashes
// and no drive. A path with a drive is absolute.
func slashed(system, p string) (string, error) {
	if system != windows {
		return p, nil
	}
	p = strings.ReplaceAll(p, `\`, "/")
	drive, rest, ok := strings.Cut(p, ":")
	switch {
	case strings.HasPrefix(p, "//"):
		return "", errUNC
	case !ok:
		return p, nil
	case rest == "":
		return "", fmt.Errorf("No relative path specified in %q", p) //nolint:staticcheck // users and clients know this text
	case !strings.EqualFold(drive+":", systemDrive):
		return "", errDrive
	}
	return "/" + strings.TrimLeft(rest, "/"), nil
}

// isAbs tells whether a path that is written for a system is absolute, as all are that cannot be.
func isAbs(system, p string) bool {
	slash, err := slashed(system, p)
	return err != nil || path.IsAbs(slash)
}

// withDrive returns an absolute path of a file tree as processes of a system know it, with slashes.
func withDrive(system, p string) string {
	if system != windows {
		return p
	}
	return systemDrive + p
}

// dir is the working directory as a path of the tree.
func (s *stage) dir() string {
	p, err := slashed(s.platform.OS, s.image.Config.WorkingDir)
	if err != nil {
		return "/" // an image may say anything
	}
	return path.Join("/", p)
}

// mountTarget returns where a mount is made. What is relative begins at the working directory.
func (s *stage) mountTarget(p string) string {
	switch {
	case path.IsAbs(p):
		return path.Clean(p)
	case isAbs(s.platform.OS, p):
		return p
	default:
		rel, err := slashed(s.platform.OS, p)
		if err != nil {
			rel = p
		}
		return withDrive(s.platform.OS, path.Join(s.dir(), rel))
	}
}
