// Package passwd looks users and groups up in the /etc/passwd and /etc/group of a file tree. The
// files come from images and are taken as hostile: they are opened within the tree, must be regular
// and are read up to a limit, which a single line may reach; a missing file is an empty one.
package passwd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"syscall"

	"github.com/moby/sys/user"

	"github.com/openbuildkit/buildkit/worker/internal/beneath"
)

// maxFile bounds what is read of either file: 8 MiB, some hundred thousand accounts.
const maxFile = 8 << 20

// maxGroups is NGROUPS_MAX of Linux, see limits.h.
const maxGroups = 65536

// User is who a process runs as.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups; GID is always the first of them.
	Groups []uint32
}

// Process returns the user that spec names in the tree: "", "user", "uid", "user:group" or any mix
// of names and numbers. Empty is root. Supplementary groups are those of the group file if spec has
// no group, otherwise there are none. The errors say what was not found.
func Process(root *beneath.Root, spec string) (User, error) {
	if spec == "" || spec == "0:0" {
		return User{Groups: []uint32{0}}, nil
	}
	users, groups, err := read(root)
	if err != nil {
		return User{}, err
	}
	return parse(users, groups, spec)
}

func parse(users, groups []byte, spec string) (User, error) {
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(users), bytes.NewReader(groups))
	if err != nil {
		return User{}, err
	}
	if len(u.Sgids) > maxGroups {
		return User{}, fmt.Errorf("user %s: %d groups are more than the %d that a process may have", spec, len(u.Sgids), maxGroups)
	}
	var out User
	seen := make(map[uint32]bool, len(u.Sgids))
	for i, n := range append([]int{u.Uid, u.Gid}, u.Sgids...) {
		v, ok := id(n)
		switch {
		case !ok:
			return User{}, fmt.Errorf("user %s: id %d is out of range", spec, n)
		case i == 0:
			out.UID = v
		case i == 1:
			out.GID = v
			out.Groups = []uint32{v}
			seen[v] = true
		case !seen[v]:
			out.Groups = append(out.Groups, v)
			seen[v] = true
		}
	}
	return out, nil
}

// LookupUser returns the ids of the user called name. ok is false if there is none.
func LookupUser(root *beneath.Root, name string) (uid, gid uint32, ok bool, err error) {
	data, err := readUsers(root)
	if err != nil {
		return 0, 0, false, err
	}
	found, err := user.ParsePasswdFilter(bytes.NewReader(data), func(u user.User) bool { return u.Name == name })
	if err != nil || len(found) == 0 {
		return 0, 0, false, err
	}
	uid, uok := id(found[0].Uid)
	gid, gok := id(found[0].Gid)
	if !uok || !gok {
		return 0, 0, false, fmt.Errorf("user %s: an id is out of range", name)
	}
	return uid, gid, true, nil
}

// LookupGroup returns the id of the group called name. ok is false if there is none.
func LookupGroup(root *beneath.Root, name string) (gid uint32, ok bool, err error) {
	data, err := readGroups(root)
	if err != nil {
		return 0, false, err
	}
	found, err := user.ParseGroupFilter(bytes.NewReader(data), func(g user.Group) bool { return g.Name == name })
	if err != nil || len(found) == 0 {
		return 0, false, err
	}
	gid, ok = id(found[0].Gid)
	if !ok {
		return 0, false, fmt.Errorf("group %s: the id is out of range", name)
	}
	return gid, true, nil
}

// id converts an id of a file, whose range the parser leaves open.
func id(n int) (uint32, bool) {
	return uint32(n), n >= 0 && int64(n) <= math.MaxUint32
}

func read(root *beneath.Root) (users, groups []byte, err error) {
	if users, err = readUsers(root); err != nil {
		return nil, nil, err
	}
	groups, err = readGroups(root)
	return users, groups, err
}

func readUsers(root *beneath.Root) ([]byte, error) {
	data, err := readFile(root, "/etc/passwd")
	return shortUsers(data), err
}

func readGroups(root *beneath.Root) ([]byte, error) {
	data, err := readFile(root, "/etc/group")
	return shortGroups(data), err
}

func readFile(root *beneath.Root, p string) ([]byte, error) {
	data, err := root.ReadFile(p, maxFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return data, err
}
