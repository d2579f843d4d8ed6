package llb

import (
	"context"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// FileAction is a change of a file tree, or a chain of them. It is a value like State: methods
// return a longer chain and leave the receiver as it was. A chain is one op and yields one
// layer.
type FileAction struct {
	prev   *FileAction
	change change
}

// change is one step of a FileAction.
type change interface {
	// fill completes a. Relative paths are taken from dir; names of users are looked up in the
	// input base.
	fill(a *pb.FileAction, dir string, base int64) (caps []string)
}

// Owner is a user and a group. Of a user without a group the primary group is taken.
type Owner struct {
	User, Group *Principal
}

// Principal is a user or a group by name or, if that is empty, by number.
type Principal struct {
	Name string
	ID   uint32
}

// ParseOwner reads "user[:group]". What looks like a number is one.
func ParseOwner(s string) Owner {
	user, group, ok := strings.Cut(s, ":")
	var o Owner
	if user != "" {
		o.User = parsePrincipal(user)
	}
	if ok && group != "" {
		o.Group = parsePrincipal(group)
	}
	return o
}

func parsePrincipal(s string) *Principal {
	if id, err := strconv.ParseUint(s, 10, 32); err == nil {
		return &Principal{ID: uint32(id)}
	}
	return &Principal{Name: s}
}

// OwnerID returns an owner by numbers.
func OwnerID(uid, gid uint32) Owner { return Owner{&Principal{ID: uid}, &Principal{ID: gid}} }

func (o *Owner) message(base int64) *pb.ChownOpt {
	if o == nil {
		return nil
	}
	return &pb.ChownOpt{User: o.User.message(base), Group: o.Group.message(base)}
}

func (p *Principal) message(base int64) *pb.UserOpt {
	switch {
	case p == nil:
		return nil
	case p.Name != "":
		return &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: p.Name, Input: base}}}
	}
	return &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: p.ID}}
}

// fileInfo is what options of all changes that make files share.
type fileInfo struct {
	owner *Owner
	time  *time.Time
}

func (i *fileInfo) timestamp() int64 {
	if i.time == nil {
		return -1
	}
	return i.time.UnixNano()
}

// MkdirOption changes Mkdir.
type MkdirOption interface{ applyMkdir(*mkdir) }

// MkfileOption changes Mkfile.
type MkfileOption interface{ applyMkfile(*mkfile) }

// SymlinkOption changes Symlink.
type SymlinkOption interface{ applySymlink(*symlink) }

// RmOption changes Rm.
type RmOption interface{ applyRm(*rm) }

// MakeOption changes everything that makes files.
type MakeOption interface {
	MkdirOption
	MkfileOption
	SymlinkOption
	CopyOption
}

type makeOpt func(*fileInfo)

func (o makeOpt) applyMkdir(a *mkdir)     { o(&a.info) }
func (o makeOpt) applyMkfile(a *mkfile)   { o(&a.info) }
func (o makeOpt) applySymlink(a *symlink) { o(&a.info) }
func (o makeOpt) applyCopy(a *copyOp)     { o(&a.info) }

// WithOwner sets the owner, which is root otherwise, or for a copy that of the source.
func WithOwner(o Owner) MakeOption { return makeOpt(func(i *fileInfo) { i.owner = &o }) }

// WithTime sets the modification time, which is the time of the run otherwise, or for a copy
// that of the source.
func WithTime(t time.Time) MakeOption { return makeOpt(func(i *fileInfo) { i.time = &t }) }

type mkdir struct {
	path    string
	mode    fs.FileMode
	parents bool
	info    fileInfo
}

type mkdirOpt func(*mkdir)

func (o mkdirOpt) applyMkdir(a *mkdir) { o(a) }

// WithParents makes missing parents too. A directory that exists is then no error.
func WithParents() MkdirOption { return mkdirOpt(func(a *mkdir) { a.parents = true }) }

// Mkdir makes a directory.
func Mkdir(p string, perm fs.FileMode, opts ...MkdirOption) *FileAction {
	return (*FileAction)(nil).Mkdir(p, perm, opts...)
}

// Mkdir makes a directory after what f does.
func (f *FileAction) Mkdir(p string, perm fs.FileMode, opts ...MkdirOption) *FileAction {
	a := &mkdir{path: p, mode: perm}
	for _, o := range opts {
		o.applyMkdir(a)
	}
	return &FileAction{f, a}
}

func (a *mkdir) fill(m *pb.FileAction, dir string, base int64) []string {
	m.Action = &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{
		Path:        absolute(dir, a.path),
		Mode:        int32(a.mode.Perm()),
		MakeParents: a.parents,
		Owner:       a.info.owner.message(base),
		Timestamp:   a.info.timestamp(),
	}}
	return nil
}

type mkfile struct {
	path string
	mode fs.FileMode
	data []byte
	info fileInfo
}

// Mkfile writes a file, over one that exists.
func Mkfile(p string, perm fs.FileMode, data []byte, opts ...MkfileOption) *FileAction {
	return (*FileAction)(nil).Mkfile(p, perm, data, opts...)
}

// Mkfile writes a file after what f does. It keeps data.
func (f *FileAction) Mkfile(p string, perm fs.FileMode, data []byte, opts ...MkfileOption) *FileAction {
	a := &mkfile{path: p, mode: perm, data: data}
	for _, o := range opts {
		o.applyMkfile(a)
	}
	return &FileAction{f, a}
}

func (a *mkfile) fill(m *pb.FileAction, dir string, base int64) []string {
	m.Action = &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{
		Path:      absolute(dir, a.path),
		Mode:      int32(a.mode.Perm()),
		Data:      a.data,
		Owner:     a.info.owner.message(base),
		Timestamp: a.info.timestamp(),
	}}
	return nil
}

type symlink struct {
	target, path string
	info         fileInfo
}

// Symlink makes a symbolic link at p that says target.
func Symlink(target, p string, opts ...SymlinkOption) *FileAction {
	return (*FileAction)(nil).Symlink(target, p, opts...)
}

// Symlink makes a symbolic link after what f does.
func (f *FileAction) Symlink(target, p string, opts ...SymlinkOption) *FileAction {
	a := &symlink{target: target, path: p}
	for _, o := range opts {
		o.applySymlink(a)
	}
	return &FileAction{f, a}
}

func (a *symlink) fill(m *pb.FileAction, dir string, base int64) []string {
	m.Action = &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{
		Oldpath:   a.target,
		Newpath:   absolute(dir, a.path),
		Owner:     a.info.owner.message(base),
		Timestamp: a.info.timestamp(),
	}}
	return []string{pb.CapFileSymlinkCreate}
}

type rm struct {
	path          string
	allowNotFound bool
	wildcard      bool
}

type rmOpt func(*rm)

func (o rmOpt) applyRm(a *rm) { o(a) }

// AllowNotFound makes a missing path no error.
func AllowNotFound() RmOption { return rmOpt(func(a *rm) { a.allowNotFound = true }) }

// Rm removes a file or a tree.
func Rm(p string, opts ...RmOption) *FileAction { return (*FileAction)(nil).Rm(p, opts...) }

// Rm removes a file or a tree after what f does.
func (f *FileAction) Rm(p string, opts ...RmOption) *FileAction {
	a := &rm{path: p}
	for _, o := range opts {
		o.applyRm(a)
	}
	return &FileAction{f, a}
}

func (a *rm) fill(m *pb.FileAction, dir string, _ int64) []string {
	m.Action = &pb.FileAction_Rm{Rm: &pb.FileActionRm{
		Path:          absolute(dir, a.path),
		AllowNotFound: a.allowNotFound,
		AllowWildcard: a.wildcard,
	}}
	if a.wildcard {
		return []string{pb.CapFileRmWildcard}
	}
	return nil
}

// File changes the files of s.
func (s State) File(action *FileAction, opts ...ConstraintsOpt) State {
	if action == nil {
		return s
	}
	return s.withEdge(&fileOp{base: s, last: action, constraints: newOpConstraints(opts)}, 0)
}

// fileOp is a chain of changes.
type fileOp struct {
	base        State
	last        *FileAction
	constraints opConstraints
}

func (o *fileOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	base, err := r.resolve(ctx, o.base)
	if err != nil {
		return nil, err
	}
	var changes []change
	for a := o.last; a != nil; a = a.prev {
		changes = append(changes, a.change)
	}
	slices.Reverse(changes)

	p := &plan{}
	hasBase := base.edge.vertex != nil
	if hasBase {
		p.inputs = append(p.inputs, base.edge)
	}
	hasSource := make([]bool, len(changes))
	for i, c := range changes {
		if c, ok := c.(*copyOp); ok {
			src, err := r.resolve(ctx, c.source)
			if err != nil {
				return nil, err
			}
			if hasSource[i] = src.edge.vertex != nil; hasSource[i] {
				p.inputs = append(p.inputs, src.edge)
			}
		}
	}
	p.build = func(in []*pb.Input) (*content, error) {
		var inputs inputSet
		next := func(present bool) int64 {
			if !present {
				return pb.NoInput
			}
			i := inputs.add(in[0])
			in = in[1:]
			return i
		}
		baseIndex := next(hasBase)
		sources := make([]int64, len(changes))
		for i := range changes {
			sources[i] = next(hasSource[i])
		}
		actions := make([]*pb.FileAction, len(changes))
		caps := []string{pb.CapFileBase}
		for i, c := range changes {
			a := &pb.FileAction{Input: baseIndex, SecondaryInput: sources[i], Output: pb.NoOutput}
			if i > 0 {
				a.Input = int64(len(inputs.list) + i - 1)
			}
			if i == len(changes)-1 {
				a.Output = 0
			}
			caps = append(caps, c.fill(a, base.settings.dir, baseIndex)...)
			actions[i] = a
		}
		op := &pb.Op{
			Inputs:      inputs.list,
			Op:          &pb.Op_File{File: &pb.FileOp{Actions: actions}},
			Constraints: r.workerConstraints(&o.constraints),
		}
		return encode(op, &o.constraints, caps)
	}
	return p, nil
}
