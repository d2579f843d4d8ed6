package fileop

import (
	"fmt"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/internal/beneath"
	"github.com/openbuildkit/buildkit/worker/internal/passwd"
)

// Owner is who a file belongs to.
type Owner struct{ UID, GID uint32 }

// TreeOf returns the folder that holds the tree which an owner's name is looked up in, by the
// index that the action gives.
type TreeOf func(input int64) (dir string, err error)

// LookupOwner returns the owner that an action asks for, nil if it asks for none. A user that is
// not known is 0, a group that is not known the user's: so do the tools that people know.
func LookupOwner(opt *pb.ChownOpt, tree TreeOf) (*Owner, error) {
	if opt == nil || opt.User == nil && opt.Group == nil {
		return nil, nil
	}
	o := &Owner{}
	switch u := opt.User.GetUser().(type) {
	case nil:
	case *pb.UserOpt_ByID:
		o.UID, o.GID = u.ByID, u.ByID
	case *pb.UserOpt_ByName:
		err := lookup(u.ByName, "user", tree, func(root *beneath.Root, name string) error {
			uid, gid, ok, err := passwd.LookupUser(root, name)
			if ok {
				o.UID, o.GID = uid, gid
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	switch g := opt.Group.GetUser().(type) {
	case nil:
	case *pb.UserOpt_ByID:
		o.GID = g.ByID
	case *pb.UserOpt_ByName:
		err := lookup(g.ByName, "group", tree, func(root *beneath.Root, name string) error {
			gid, ok, err := passwd.LookupGroup(root, name)
			if ok {
				o.GID = gid
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

func lookup(named *pb.NamedUserOpt, what string, tree TreeOf, find func(*beneath.Root, string) error) error {
	if named == nil {
		return fmt.Errorf("invalid nil %s name", what)
	}
	if named.Input < 0 {
		return fmt.Errorf("invalid %s index: %d", what, named.Input)
	}
	dir, err := tree(named.Input)
	if err != nil {
		return err
	}
	root, err := beneath.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := find(root, named.Name); err != nil {
		return fmt.Errorf("look up %s %s: %w", what, named.Name, err)
	}
	return nil
}
