package op

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/checksum"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker/fileop"
)

const fileKind = "buildkit.file.v0"

// fileOp changes trees without a container.
type fileOp struct {
	f  *Factory
	v  *graph.Vertex
	op *pb.FileOp
}

// Static is true.
func (o *fileOp) Static() bool { return true }

// selector is a part of an input that an action reads. Its JSON form names the part in keys.
type selector struct {
	Path     string   `json:"path"`
	Wildcard bool     `json:"wildcard,omitempty"`
	Follow   bool     `json:"follow,omitempty"`
	Include  []string `json:"include,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
	Required []string `json:"required,omitempty"`
}

func (s selector) opt() checksum.Opt {
	return checksum.Opt{FollowLinks: s.Follow, Wildcard: s.Wildcard, Include: s.Include, Exclude: s.Exclude, Required: s.Required}
}

// Identify describes the op by its actions. What is copied is identified by its content, so that
// of a source's path only the last element, which names the copy, is part of the op.
func (o *fileOp) Identify(context.Context, *schedule.Env) (*schedule.Identity, error) {
	op := proto.CloneOf(o.op)
	reads := make([][]selector, len(o.v.Inputs))
	writes := make([]bool, len(o.v.Inputs))
	isInput := func(i int64) bool { return i >= 0 && i < int64(len(reads)) }
	for _, a := range op.Actions {
		if isInput(a.Input) {
			writes[a.Input] = true
		}
		for _, named := range namedOwners(a) {
			if isInput(named.Input) {
				for _, file := range []string{"/etc/passwd", "/etc/group"} {
					reads[named.Input] = append(reads[named.Input], selector{Path: file, Wildcard: true, Follow: true})
				}
			}
		}
		c := a.GetCopy()
		if c == nil || !isInput(a.SecondaryInput) {
			continue
		}
		reads[a.SecondaryInput] = append(reads[a.SecondaryInput], selector{
			Path: path.Join("/", c.Src), Wildcard: c.AllowWildcard && strings.ContainsAny(c.Src, `*?[\`), Follow: c.FollowSymlink,
			Include: c.IncludePatterns, Exclude: c.ExcludePatterns, Required: c.RequiredPaths,
		})
		c.Src = path.Base(c.Src)
	}
	key, err := opKey(fileKind, op, o.v.Op.Platform)
	if err != nil {
		return nil, err
	}
	id := &schedule.Identity{Keys: []digest.Digest{key}, Inputs: make([]schedule.InputIdentity, len(reads))}
	for i, sels := range reads {
		if len(sels) == 0 {
			continue
		}
		name, err := json.Marshal(sels)
		if err != nil {
			return nil, err
		}
		id.Inputs[i].Selector = string(name)
		if !writes[i] {
			id.Inputs[i].Content = o.f.digestSelectors(i, sels)
		}
	}
	return id, nil
}

// namedOwners returns the owners of an action that are given by name.
func namedOwners(a *pb.FileAction) []*pb.NamedUserOpt {
	var opt *pb.ChownOpt
	switch a := a.Action.(type) {
	case *pb.FileAction_Copy:
		opt = a.Copy.GetOwner()
	case *pb.FileAction_Mkdir:
		opt = a.Mkdir.GetOwner()
	case *pb.FileAction_Mkfile:
		opt = a.Mkfile.GetOwner()
	case *pb.FileAction_Symlink:
		opt = a.Symlink.GetOwner()
	}
	var out []*pb.NamedUserOpt
	for _, u := range []*pb.UserOpt{opt.GetUser(), opt.GetGroup()} {
		if n := u.GetByName(); n != nil {
			out = append(out, n)
		}
	}
	return out
}

func (f *Factory) digestSelectors(input int, sels []selector) func(context.Context, *schedule.Env, schedule.Result) (digest.Digest, error) {
	return func(ctx context.Context, env *schedule.Env, r schedule.Result) (digest.Digest, error) {
		h := digest.Canonical.Digester()
		for _, s := range sels {
			d, err := f.worker.Checksums.Digest(ctx, Ref(r), s.Path, s.opt(), env.Access())
			if err != nil {
				return "", f.failContent(ctx, env, input, r, err)
			}
			_, _ = fmt.Fprintf(h.Hash(), "%s\x00", d)
		}
		return h.Digest(), nil
	}
}

// Run does the actions.
func (o *fileOp) Run(ctx context.Context, env *schedule.Env, inputs []schedule.Result) ([]schedule.Result, error) {
	steps, err := fileop.Plan(o.op.Actions, len(inputs))
	if err != nil {
		return nil, err
	}
	release, err := o.f.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	r := &fileRun{o: o, env: env, inputs: inputs, steps: steps, states: make([]treeState, len(steps))}
	outs, err := r.run(ctx)
	if cerr := r.close(); err == nil && cerr != nil {
		for _, out := range outs {
			out.Release()
		}
		return nil, cerr
	}
	return outs, err
}

// fileRun is one run of the actions.
type fileRun struct {
	o      *fileOp
	env    *schedule.Env
	inputs []schedule.Result
	steps  []fileop.Step
	states []treeState
	// reading are input trees that are mounted for reading, by input.
	reading map[int]*mounted
}

// treeState is what an action yielded: a tree that can still be changed, or, once somebody else
// needs it as it is, one that can't.
type treeState struct {
	mutable *cache.MutableRef
	writing *mounted
	fixed   *cache.Ref
	reading *mounted
	// uses counts the actions that have yet to look at it.
	uses int
}

// mounted is a tree on a folder of the host.
type mounted struct {
	dir     string
	release func() error
}

func mountTree(m snapshot.Mountable) (*mounted, error) {
	dir, release, err := snapshot.MountTemp(m)
	if err != nil {
		return nil, err
	}
	return &mounted{dir, release}, nil
}

func (m *mounted) close() error {
	if m == nil {
		return nil
	}
	return m.release()
}

func (r *fileRun) run(ctx context.Context) (_ []schedule.Result, err error) {
	for i, s := range r.steps {
		r.states[i].uses = s.Uses
		if s.Output >= 0 {
			r.states[i].uses++
		}
	}
	n := 0
	for i, s := range r.steps {
		if err := r.step(ctx, i, s); err != nil {
			return nil, r.fail(ctx, i, err)
		}
		n = max(n, s.Output+1)
	}
	outs := make([]schedule.Result, n)
	defer func() {
		if err != nil {
			for _, out := range outs {
				if out != nil {
					out.Release()
				}
			}
		}
	}()
	for i, s := range r.steps {
		if s.Output < 0 {
			continue
		}
		ref, err := r.fix(ctx, i)
		if err != nil {
			return nil, err
		}
		outs[s.Output] = NewTree(ref.Clone())
	}
	return outs, nil
}

// step does one action.
func (r *fileRun) step(ctx context.Context, i int, s fileop.Step) error {
	source, err := r.source(ctx, s.Source)
	if err != nil {
		return err
	}
	named, err := r.named(ctx, s)
	if err != nil {
		return err
	}
	st := &r.states[i]
	if st.mutable, st.writing, err = r.base(ctx, s.Base); err != nil {
		return err
	}
	return fileop.Apply(ctx, s.Action, fileop.Trees{Dest: st.writing.dir, Source: source, Named: named})
}

// fail returns the error of an action with the trees that it and those before it yielded. The tree
// of one that a later action has changed is that one's.
func (r *fileRun) fail(ctx context.Context, action int, err error) error {
	f := r.o.f.failure(ctx, r.o.v, err)
	if f == nil {
		return err
	}
	f.Action = &action
	for _, in := range r.inputs {
		f.Inputs = append(f.Inputs, f.hold(Ref(in)))
	}
	f.Mounts = make([]*FailedTree, len(r.states))
	for i := range r.states {
		st := &r.states[i]
		if st.fixed != nil {
			f.Mounts[i] = f.hold(st.fixed)
			continue
		}
		// What is still mounted must not become a tree to build on.
		if st.mutable == nil || st.writing.close() != nil {
			continue
		}
		f.Mounts[i] = f.take(st.mutable)
		st.mutable, st.writing = nil, nil
	}
	return f
}

// base returns a tree to change: that of the action which it is built on, if nobody else looks at
// it, otherwise a new one on top.
func (r *fileRun) base(ctx context.Context, o fileop.Operand) (*cache.MutableRef, *mounted, error) {
	var parent *cache.Ref
	switch o.Kind {
	case fileop.Scratch:
	case fileop.Input:
		parent = Ref(r.inputs[o.Index])
	case fileop.Action:
		st := &r.states[o.Index]
		st.uses--
		if st.uses == 0 && st.mutable != nil {
			mutable, writing := st.mutable, st.writing
			st.mutable, st.writing = nil, nil
			return mutable, writing, nil
		}
		var err error
		if parent, err = r.fix(ctx, o.Index); err != nil {
			return nil, nil, err
		}
	}
	mutable, err := r.o.f.worker.Cache.New(ctx, parent, r.env.Access(), cache.NewOpt{Description: cache.Description{Text: r.o.v.Name}})
	if err != nil {
		return nil, nil, err
	}
	m, err := mutable.Mount(ctx, false)
	if err == nil {
		var w *mounted
		if w, err = mountTree(m); err == nil {
			return mutable, w, nil
		}
	}
	return nil, nil, errors.Join(err, mutable.Release(context.WithoutCancel(ctx)))
}

// fix ends the changes to what an action yielded.
func (r *fileRun) fix(ctx context.Context, i int) (*cache.Ref, error) {
	st := &r.states[i]
	if st.fixed != nil {
		return st.fixed, nil
	}
	if st.mutable == nil {
		return nil, errors.New("tree of a file action was changed by another")
	}
	writing := st.writing
	st.writing = nil
	if err := writing.close(); err != nil {
		return nil, err
	}
	mutable := st.mutable
	st.mutable = nil
	ref, err := mutable.Commit(ctx)
	if err != nil {
		return nil, err
	}
	st.fixed = ref
	return ref, nil
}

// source returns the folder of a tree that is read, empty for the empty tree.
func (r *fileRun) source(ctx context.Context, o fileop.Operand) (string, error) {
	switch o.Kind {
	case fileop.Input:
		return r.input(ctx, o.Index)
	case fileop.Action:
		ref, err := r.fix(ctx, o.Index)
		if err != nil {
			return "", err
		}
		st := &r.states[o.Index]
		st.uses--
		if st.reading == nil {
			if st.reading, err = r.read(ctx, ref); err != nil {
				return "", err
			}
		}
		return st.reading.dir, nil
	default:
		return "", nil
	}
}

func (r *fileRun) input(ctx context.Context, i int) (string, error) {
	ref := Ref(r.inputs[i])
	if ref == nil {
		return "", nil
	}
	if r.reading == nil {
		r.reading = map[int]*mounted{}
	}
	if r.reading[i] == nil {
		m, err := r.read(ctx, ref)
		if err != nil {
			return "", err
		}
		r.reading[i] = m
	}
	return r.reading[i].dir, nil
}

func (r *fileRun) read(ctx context.Context, ref *cache.Ref) (*mounted, error) {
	m, err := ref.Mount(ctx, true, r.env.Access())
	if err != nil {
		return nil, err
	}
	return mountTree(m)
}

// named returns how the action's owners are looked up: in an input, or in what an earlier action
// yielded.
func (r *fileRun) named(ctx context.Context, s fileop.Step) (fileop.TreeOf, error) {
	if len(namedOwners(s.Action)) == 0 {
		return nil, nil
	}
	return func(input int64) (string, error) {
		if input >= int64(len(r.inputs)) {
			return "", fmt.Errorf("invalid user index: %d", input)
		}
		dir, err := r.input(ctx, int(input))
		if err == nil && dir == "" {
			return "", fmt.Errorf("invalid user index: %d", -1)
		}
		return dir, err
	}, nil
}

// close lets go of everything that is left.
func (r *fileRun) close() error {
	ctx := context.Background()
	var errs []error
	for _, m := range r.reading {
		errs = append(errs, m.close())
	}
	for _, st := range slices.Backward(r.states) {
		errs = append(errs, st.reading.close(), st.writing.close())
		if st.fixed != nil {
			errs = append(errs, st.fixed.Release(ctx))
		}
		if st.mutable != nil {
			errs = append(errs, st.mutable.Release(ctx))
		}
	}
	return errors.Join(errs...)
}
