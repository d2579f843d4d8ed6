// Package checksum digests parts of immutable trees: what a step reads of its input, so that equal
// content is found whatever it was made from.
//
// A digest covers what a step can see: names, types, modes, owners, link targets, device numbers,
// extended attributes and bytes, but not times. Directories are digested from their entries, hard
// links as the files that they are. Links in the path that leads to the part are followed inside
// the tree.
//
// A Cache keeps what it learnt of a tree in memory and beside the record, so that a file is read
// once. A tree whose files were digested while they were received can be given to Seed and is
// then never read at all. Trees are immutable: nothing here is ever checked again.
package checksum

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache"
)

// Opt says which part of a path is meant.
type Opt struct {
	// FollowLinks follows a link at the end of the path.
	FollowLinks bool
	// Wildcard takes the path as a pattern of package filepath. It may match nothing.
	Wildcard bool
	// Include and Exclude are patterns as in a .dockerignore file, relative to the path; nil
	// includes everything and excludes nothing.
	Include, Exclude []string
	// Required are patterns of what has to be there, wherever the path leads.
	Required []string
}

// NotFoundError says that a tree has nothing at a path.
type NotFoundError struct{ Path string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// maxTables bounds how many trees are kept in memory, maxEntries how many files of them.
const (
	maxTables  = 1000
	maxEntries = 1 << 17
)

// Cache digests trees. Methods may be called concurrently.
type Cache struct {
	mu      sync.Mutex
	tables  *simplelru.LRU[string, *table]
	entries int
}

// New returns an empty Cache.
func New() *Cache {
	c := &Cache{}
	// The only error is a size below one.
	c.tables, _ = simplelru.NewLRU(maxTables, func(_ string, t *table) { c.entries -= t.counted })
	return c
}

// Digest returns the digest of the part of a tree at a path. A nil ref is the empty tree. A path
// that is not there gives a *NotFoundError, unless it is a wildcard.
func (c *Cache) Digest(ctx context.Context, ref *cache.Ref, path string, opt Opt, acc cache.Access) (_ digest.Digest, err error) {
	t := newTable()
	if ref != nil {
		t = c.table(ref)
	} else {
		t.fill(nil)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v := &view{t: t, ref: ref, acc: acc}
	defer func() { err = errors.Join(err, v.close()) }()
	d, err := v.digest(ctx, path, opt)
	if err != nil {
		return "", err
	}
	if ref != nil && t.fresh {
		if err := t.save(ref); err != nil {
			return "", err
		}
		c.count(ref.ID(), t)
	}
	return d, nil
}

// Seed tells the Cache all entries of a tree. The Cache keeps the list, which nobody changes any
// more.
func (c *Cache) Seed(ref *cache.Ref, list List) {
	t := c.table(ref)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fill(list)
	c.count(ref.ID(), t)
}

func (c *Cache) table(ref *cache.Ref) *table {
	c.mu.Lock()
	t, ok := c.tables.Get(ref.ID())
	c.mu.Unlock()
	if ok {
		return t
	}
	t = loadTable(ref)
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, ok := c.tables.Get(ref.ID()); ok {
		return other
	}
	c.tables.Add(ref.ID(), t)
	return t
}

// count takes the size of a table, which has changed, into account.
func (c *Cache) count(id string, t *table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.tables.Peek(id); !ok || known != t {
		return
	}
	c.entries += t.size() - t.counted
	t.counted = t.size()
	for c.entries > maxEntries && c.tables.Len() > 1 {
		c.tables.RemoveOldest()
	}
}
