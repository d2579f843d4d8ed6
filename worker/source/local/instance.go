//go:build linux

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
)

const (
	// valueKey is under which trees are found again, valueState what the next transfer needs.
	valueKey   = "local.key"
	valueState = "local.state"
)

// instance is a directory in one build.
type instance struct {
	src *Source
	id  *Identifier
	env source.Env
}

// Key returns a key that holds within the session.
func (i *instance) Key(_ context.Context, _ int) (source.Key, bool, error) {
	id := i.id.Session
	if ids := i.sessions().SessionIDs(); id == "" && len(ids) > 0 {
		id = ids[0]
	}
	v, err := i.id.key(id)
	return source.Key{Value: v, Session: true}, true, err
}

// sessions are those to try: the one that the op names, then those of the build.
func (i *instance) sessions() session.Group {
	return session.First(i.id.Session, i.env.Sessions)
}

// Fetch receives the directory.
func (i *instance) Fetch(ctx context.Context) (*cache.Ref, error) {
	var ref *cache.Ref
	err := i.src.cfg.Sessions.Any(ctx, i.sessions(), func(ctx context.Context, c *session.Caller) error {
		t, err := i.open(ctx, c)
		if err != nil {
			return err
		}
		ref, err = t.receive(ctx, c)
		return err
	})
	return ref, err
}

// index is what a tree for this client is found by. Clients without a shared key share one tree, or
// each of their builds would leave one behind that no other can use; see transfer for what is
// believed of it.
func (i *instance) index(c *session.Caller) string {
	index := fmt.Sprintf("%q:%q:%q", i.id.Name, i.id.SharedKeyHint, "key "+c.SharedKey())
	if i.id.MetadataOnly {
		index += ":metadata"
	}
	return index
}

// tree is a tree to receive into.
type tree struct {
	*instance
	ref *cache.MutableRef
	// fresh is true for a tree that was made just now.
	fresh bool
	// changed is true if the tree is not what it was at the end of the last transfer.
	changed bool
}

// open returns the tree of the last build, or a new one if there is none or it is in use.
func (i *instance) open(ctx context.Context, c *session.Caller) (*tree, error) {
	index := i.index(c)
	for _, id := range i.src.cfg.Cache.Search(valueKey, index) {
		ref, err := i.src.cfg.Cache.Reopen(id)
		switch {
		case err == nil:
			return &tree{instance: i, ref: ref}, nil
		case errors.Is(err, cache.ErrLocked), errors.Is(err, cache.ErrNotFound), errors.Is(err, cache.ErrLost):
		default:
			return nil, err
		}
	}
	ref, err := i.src.cfg.Cache.New(ctx, nil, cache.Access{}, cache.NewOpt{
		Description: cache.Description{Type: cache.LocalSource, Text: "local source for " + i.id.Name},
		Retain:      true,
	})
	if err != nil {
		return nil, err
	}
	t := &tree{instance: i, ref: ref, fresh: true, changed: true}
	if err := ref.SetValue(valueKey, []byte(i.id.Name), index); err != nil {
		return nil, errors.Join(err, t.giveUp(ctx))
	}
	return t, nil
}

// giveUp ends the use of a tree that was not received in full. One that was made for nothing goes.
func (t *tree) giveUp(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	id := t.ref.ID()
	err := t.ref.Release(ctx)
	if t.fresh {
		err = errors.Join(err, t.src.cfg.Cache.Drop(ctx, id))
	}
	return err
}

// receive brings the tree up to date and commits it.
func (t *tree) receive(ctx context.Context, c *session.Caller) (*cache.Ref, error) {
	prev := t.ref.Value(valueState)
	l := newListing(t.src.sums.take(t.ref.ID()))
	state, err := t.transfer(ctx, c, prev, l)
	if err == nil && t.changed && len(state) > 0 {
		err = t.ref.SetValue(valueState, state, "")
	}
	if err != nil {
		return nil, errors.Join(err, t.giveUp(ctx))
	}
	id := t.ref.ID()
	ref, err := t.ref.Commit(ctx)
	if err != nil {
		return nil, errors.Join(err, t.giveUp(ctx))
	}
	if !t.id.MetadataOnly {
		if t.changed && t.src.cfg.Checksums != nil {
			t.src.cfg.Checksums.Seed(ref, l.list)
		}
		t.src.sums.put(id, l.list)
	}
	return ref, nil
}

// transfer receives into the mounted tree and returns the state for the next time.
func (t *tree) transfer(ctx context.Context, c *session.Caller, prev []byte, l *listing) (_ []byte, err error) {
	m, err := t.ref.Mount(ctx, false)
	if err != nil {
		return nil, err
	}
	dir, unmount, err := snapshot.MountTemp(m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	var state bytes.Buffer
	opt := filesync.ReceiveOpt{
		Name:            t.id.Name,
		IncludePatterns: t.id.IncludePatterns,
		ExcludePatterns: t.id.ExcludePatterns,
		FollowPaths:     t.id.FollowPaths,

		Dest:      dir,
		Changing:  func() error { return t.begin(ctx) },
		Differ:    t.id.Differ,
		NextState: &state,
		Strangers: c.SharedKey() == "",

		MetadataOnly:       t.id.MetadataOnly,
		MetadataOnlyExcept: t.id.MetadataExcept,

		Map:      l.add,
		Hasher:   l.hasher,
		Notify:   l.notify,
		Progress: t.progress(),
	}
	if prev != nil {
		opt.PrevState = bytes.NewReader(prev)
	} else {
		t.changed = true
	}
	if err := filesync.Receive(ctx, c, opt); err != nil {
		return nil, err
	}
	return state.Bytes(), nil
}

// begin prepares the tree, and what is stored beside it, for the first change.
func (t *tree) begin(ctx context.Context) error {
	t.changed = true
	if err := t.ref.BeginWrite(ctx); err != nil {
		return err
	}
	return t.ref.SetValue(valueState, nil, "")
}

// progress shows the bytes that have come.
func (t *tree) progress() filesync.Progress {
	start := time.Now()
	return func(n int64, last bool) {
		st := event.Status{
			ID: "transferring " + t.id.Name + ":", Name: "transferring",
			Current: n, Started: &start, Timestamp: time.Now(),
		}
		if last {
			st.Completed = &st.Timestamp
		}
		t.env.Scope.Status(st)
	}
}
