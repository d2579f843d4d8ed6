package instruction

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/suggest"
)

// Types of mounts.
const (
	MountBind   = "bind"
	MountCache  = "cache"
	MountTmpfs  = "tmpfs"
	MountSecret = "secret"
	MountSSH    = "ssh"
)

// Sharing modes of cache mounts.
const (
	SharingShared  = "shared"
	SharingPrivate = "private"
	SharingLocked  = "locked"
)

var (
	mountTypes = []string{MountBind, MountCache, MountTmpfs, MountSecret, MountSSH}
	mountKeys  = []string{
		"type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required",
		"size", "mode", "uid", "gid", "src", "dst", "destination", "ro", "rw", "env",
	}
	sharingModes = []string{SharingShared, SharingPrivate, SharingLocked}
)

// Mount is an expanded --mount flag.
type Mount struct {
	Type string
	From string
	// Source and Target are paths as written.
	Source, Target string
	ReadOnly       bool
	// ID names a cache, a secret or an ssh agent; empty is its default.
	ID string
	// Sharing is one of the constants; empty is shared.
	Sharing  string
	Required bool
	// Size is in bytes, 0 without a limit.
	Size int64
	// Mode, UID and GID are nil if not given.
	Mode, UID, GID *uint64
	// Env is the variable that gets the value of a secret; nil without one.
	Env *string
}

// Expand parses the fields of the mount, with expand applied to their values.
func (r RawMount) Expand(expand func(string) (string, error)) (*Mount, error) {
	m := &mountParser{Mount: Mount{Type: MountBind, From: r.From}}
	for _, field := range r.fields {
		if err := m.field(field, expand); err != nil {
			return nil, err
		}
	}
	if err := m.finish(); err != nil {
		return nil, err
	}
	return &m.Mount, nil
}

type mountParser struct {
	Mount
	// readOnly is nil unless given.
	readOnly *bool
}

func (m *mountParser) field(field string, expand func(string) (string, error)) error {
	name, value, given := strings.Cut(field, "=")
	key := strings.ToLower(name)
	if !given && !slices.Contains([]string{"readonly", "ro", "readwrite", "rw", "required"}, key) {
		return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
	}
	if key != "from" {
		expanded, err := expand(value)
		if err != nil {
			return err
		}
		value = expanded
	}
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
		if !slices.Contains(mountTypes, m.Type) {
			return suggest.Wrap(fmt.Errorf("unsupported mount type %q", value), m.Type, mountTypes)
		}
	case "from":
		m.From = value
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro", "readwrite", "rw":
		v, err := boolean(key, value, given)
		ro := v == (key == "readonly" || key == "ro")
		m.readOnly = &ro
		return err
	case "required":
		v, err := boolean(key, value, given)
		m.Required = v
		return err
	case "id":
		m.ID = value
	case "sharing":
		m.Sharing = strings.ToLower(value)
		if !slices.Contains(sharingModes, m.Sharing) {
			return suggest.Wrap(fmt.Errorf("unsupported sharing value %q", value), m.Sharing, sharingModes)
		}
	case "size":
		size, err := units.RAMInBytes(value)
		if err != nil {
			return invalidValue(value, key)
		}
		m.Size = size
	case "mode":
		return number(&m.Mode, key, value, 8)
	case "uid":
		return number(&m.UID, key, value, 10)
	case "gid":
		return number(&m.GID, key, value, 10)
	case "env":
		m.Env = &value
	default:
		return suggest.Wrap(fmt.Errorf("unexpected key '%s' in '%s'", key, field), key, mountKeys)
	}
	return nil
}

func boolean(key, value string, given bool) (bool, error) {
	if !given {
		return true, nil
	}
	v, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("invalid value for %s: %s", key, value)
	}
	return v, nil
}

func number(dst **uint64, key, value string, radix int) error {
	n, err := strconv.ParseUint(value, radix, 32)
	if err != nil {
		return fmt.Errorf("invalid value %s for %s", value, key)
	}
	*dst = &n
	return nil
}

func invalidValue(value, key string) error {
	return fmt.Errorf("invalid value for %s: %s", key, value)
}

// finish checks what depends on several keys and fills in what the type implies.
func (m *mountParser) finish() error {
	if m.Type != MountCache && m.Sharing != "" {
		return fmt.Errorf("invalid cache sharing set for %s mount", m.Type)
	}
	if m.Type != MountTmpfs && m.Size != 0 {
		return fmt.Errorf("unexpected key 'size' for mount type '%s'", m.Type)
	}
	if m.Type == MountBind || m.Type == MountTmpfs {
		for _, k := range []struct {
			name string
			v    *uint64
		}{{"mode", m.Mode}, {"uid", m.UID}, {"gid", m.GID}} {
			if k.v != nil {
				return fmt.Errorf("%s not allowed for %q type mounts", k.name, m.Type)
			}
		}
	}
	m.ReadOnly = m.Type == MountBind
	if m.readOnly != nil {
		m.ReadOnly = *m.readOnly
	}
	switch m.Type {
	case MountSecret:
		return m.finishSecret()
	case MountSSH:
		if m.Source != "" {
			return errors.New("ssh does not support source")
		}
	}
	return nil
}

func (m *mountParser) finishSecret() error {
	if m.From != "" {
		return errors.New("secret mount should not have a from")
	}
	if m.ID != "" && m.Source != "" {
		return errors.New("both source and id can't be set")
	}
	if m.ID == "" {
		m.ID = m.Source
	}
	if m.ID == "" {
		if m.Target == "" {
			return errors.New("invalid secret mount. one of source, target required")
		}
		m.ID = path.Base(m.Target)
	}
	return nil
}
