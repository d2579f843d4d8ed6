package op

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
)

// cacheMountValue is the key under which records of cache mounts are searched, and the second one
// finds all of an id, whatever they were begun from.
const (
	cacheMountValue   = "cachemount"
	cacheMountIDValue = "cachemount.id"
)

// cacheMounts hands out the trees of cache mounts: one tree for all at once (shared), one for each
// (private), or one for one after the other (locked).
type cacheMounts struct {
	cache *cache.Manager

	mu    sync.Mutex
	lives map[string]*cacheMountLife
}

// cacheMountLife is the use of one key while anybody has it or waits for it.
type cacheMountLife struct {
	// users counts those who have the tree together; locked is set if it is one who has it alone.
	users  int
	locked bool
	tree   *cache.MutableRef
	// opening is set while somebody opens the tree for the others.
	opening bool
	queue   []chan struct{}
}

type cacheMountSpec struct {
	id       string
	sharing  pb.CacheSharingOpt
	parent   *cache.Ref
	describe string
}

func (s cacheMountSpec) key() string {
	if s.parent == nil {
		return s.id
	}
	return s.id + "\x00" + s.parent.ID()
}

type cacheMountUse struct {
	spec    cacheMountSpec
	tree    *cache.MutableRef
	release func() error
}

func newCacheMounts(c *cache.Manager) *cacheMounts {
	return &cacheMounts{cache: c, lives: map[string]*cacheMountLife{}}
}

// acquire returns the tree of a spec, waiting for its turn where the sharing mode says so. While
// it waits, a status of the vertex tells.
func (c *cacheMounts) acquire(ctx context.Context, spec cacheMountSpec, user mountUser) (*cacheMountUse, error) {
	if spec.sharing == pb.CacheSharingOpt_PRIVATE {
		return c.private(ctx, spec, user)
	}
	life, err := c.enter(ctx, spec, user)
	if err != nil {
		return nil, err
	}
	if life.tree == nil {
		tree, err := c.open(ctx, spec, user)
		if err != nil {
			_ = c.exit(spec.key(), life)
			return nil, err
		}
		life.tree = tree
	}
	c.opened(life)
	return &cacheMountUse{spec: spec, tree: life.tree, release: func() error { return c.exit(spec.key(), life) }}, nil
}

// enter waits until the key may be used as spec says, and counts the user. The caller is alone
// until it calls opened.
func (c *cacheMounts) enter(ctx context.Context, spec cacheMountSpec, user mountUser) (*cacheMountLife, error) {
	locked := spec.sharing == pb.CacheSharingOpt_LOCKED
	var done func(error) error
	for {
		c.mu.Lock()
		life := c.lives[spec.key()]
		if life == nil {
			life = &cacheMountLife{}
			c.lives[spec.key()] = life
		}
		free := !life.locked && !life.opening && (!locked || life.users == 0)
		if free {
			life.users++
			life.locked, life.opening = locked, true
			c.mu.Unlock()
			if done != nil {
				_ = done(nil)
			}
			return life, nil
		}
		turn := make(chan struct{})
		life.queue = append(life.queue, turn)
		opening := life.opening && !life.locked && !locked
		c.mu.Unlock()
		if done == nil && !opening {
			done = user.scope.Step(fmt.Sprintf("waiting for cache mount %s", spec.id))
		}
		select {
		case <-turn:
		case <-ctx.Done():
			if done != nil {
				_ = done(context.Cause(ctx))
			}
			return nil, context.Cause(ctx)
		}
	}
}

func (c *cacheMounts) opened(life *cacheMountLife) {
	c.mu.Lock()
	defer c.mu.Unlock()
	life.opening = false
	life.wake()
}

// wake lets all who wait look again.
func (l *cacheMountLife) wake() {
	for _, turn := range l.queue {
		close(turn)
	}
	l.queue = nil
}

// exit ends one use; the last one gives the tree back.
func (c *cacheMounts) exit(key string, life *cacheMountLife) error {
	c.mu.Lock()
	life.users--
	if life.users > 0 {
		c.mu.Unlock()
		return nil
	}
	tree := life.tree
	life.tree = nil
	// Nobody may open the record before it is released.
	life.opening = true
	c.mu.Unlock()
	var err error
	if tree != nil {
		err = tree.Release(context.Background())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	life.locked, life.opening = false, false
	if len(life.queue) == 0 {
		delete(c.lives, key)
	}
	life.wake()
	return err
}

// private returns a tree that nobody else has, an unused one if there is any.
func (c *cacheMounts) private(ctx context.Context, spec cacheMountSpec, user mountUser) (*cacheMountUse, error) {
	tree, err := c.open(ctx, spec, user)
	if err != nil {
		return nil, err
	}
	return &cacheMountUse{spec: spec, tree: tree, release: func() error { return tree.Release(context.Background()) }}, nil
}

// open opens an unused tree of the key, made if there is none.
func (c *cacheMounts) open(ctx context.Context, spec cacheMountSpec, user mountUser) (*cache.MutableRef, error) {
	for _, id := range c.cache.Search(cacheMountValue, spec.key()) {
		tree, err := c.cache.GetMutable(ctx, id)
		switch {
		case err == nil:
			return tree, nil
		case errors.Is(err, cache.ErrLocked), errors.Is(err, cache.ErrNotFound), errors.Is(err, cache.ErrLost):
		default:
			return nil, fmt.Errorf("open cache mount %s: %w", spec.id, err)
		}
	}
	tree, err := c.cache.New(ctx, spec.parent, user.access, cache.NewOpt{
		Description: cache.Description{Type: cache.CacheMount, Text: spec.describe},
		Retain:      true,
	})
	if err != nil {
		return nil, fmt.Errorf("make cache mount %s: %w", spec.id, err)
	}
	err = errors.Join(
		tree.SetValue(cacheMountValue, []byte(spec.key()), spec.key()),
		tree.SetValue(cacheMountIDValue, []byte(spec.id), spec.id),
	)
	if err != nil {
		return nil, errors.Join(err, tree.Release(context.WithoutCancel(ctx)))
	}
	return tree, nil
}

// empty forgets the trees of an id that nobody uses; those in use are forgotten as soon as they
// are looked for again.
func (c *cacheMounts) empty(ctx context.Context, id string) error {
	if err := c.cache.Drop(ctx, c.cache.Search(cacheMountIDValue, id)...); err != nil {
		return fmt.Errorf("empty cache mount %s: %w", id, err)
	}
	return nil
}
