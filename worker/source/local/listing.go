//go:build linux

package local

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/openbuildkit/buildkit/cache/checksum"
)

// sums are the digests of the files of a tree by path.
type sums map[string]checksum.Entry

// listing gathers the entries of a tree while it is received: all of them from their
// descriptions, the digests of those that came from their bytes and of the others from before.
type listing struct {
	mu      sync.Mutex
	before  sums
	entries map[string]checksum.Entry
}

func newListing(before sums) *listing {
	return &listing{before: before, entries: map[string]checksum.Entry{}}
}

// add is called for every entry that the client describes. It refuses those that are of no use in
// a tree.
func (l *listing) add(path string, st *types.Stat) bool {
	if fs.FileMode(st.Mode)&(fs.ModeSocket|fs.ModeIrregular) != 0 {
		return false
	}
	path = clean(path)
	e := checksum.EntryOf(st)
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.before[path]; ok && old.Kind == e.Kind && old.Header == e.Header {
		e.Content, e.Hashed = old.Content, old.Hashed
	}
	l.entries[path] = e
	return true
}

func (l *listing) hasher(*types.Stat) (hash.Hash, error) { return sha256.New(), nil }

// notify is called for every entry that changed. What was known of it before is no longer true.
func (l *listing) notify(kind fsutil.ChangeKind, path string, st *types.Stat, dgst digest.Digest) error {
	if kind == fsutil.ChangeKindDelete || st == nil {
		return nil
	}
	e := checksum.EntryOf(st)
	if e.Kind == checksum.File {
		n, err := hex.Decode(e.Content[:], []byte(dgst.Encoded()))
		e.Hashed = err == nil && n == len(e.Content)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[clean(path)] = e
	return nil
}

// sums returns the digests that are known.
func (l *listing) sums() sums {
	known := sums{}
	for path, e := range l.entries {
		if e.Hashed {
			known[path] = e
		}
	}
	return known
}

func clean(path string) string { return strings.TrimPrefix(filepath.ToSlash(path), "/") }

const (
	// maxTrees and maxSums bound what is remembered: some 200 bytes for every file.
	maxTrees = 64
	maxSums  = 1 << 19
)

// sumCache remembers the digests of the trees that are kept, by the id of the record. What it
// forgets is read from the files again.
type sumCache struct {
	mu    sync.Mutex
	trees *simplelru.LRU[string, sums]
	files int
}

func newSumCache() *sumCache {
	c := &sumCache{}
	// The only error is a size below one.
	c.trees, _ = simplelru.NewLRU(maxTrees, func(_ string, s sums) { c.files -= len(s) })
	return c
}

// take returns the digests of a tree and forgets them: the tree is about to change.
func (c *sumCache) take(id string) sums {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, _ := c.trees.Peek(id)
	c.trees.Remove(id)
	return s
}

func (c *sumCache) put(id string, s sums) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trees.Remove(id)
	c.files += len(s)
	c.trees.Add(id, s)
	for c.files > maxSums && c.trees.Len() > 1 {
		c.trees.RemoveOldest()
	}
}
