//go:build linux

package local

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io/fs"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/openbuildkit/buildkit/cache/checksum"
)

// listing gathers the entries of a tree while it is received: all of them from their
// descriptions, the digests of those that came from their bytes and of the others from before.
type listing struct {
	mu     sync.Mutex
	before checksum.List // what is left of it
	list   checksum.List
}

func newListing(before checksum.List) *listing {
	return &listing{before: before, list: make(checksum.List, 0, len(before)+len(before)/8)}
}

// add is called for every entry that the client describes, in order. It refuses those that are of
// no use in a tree.
func (l *listing) add(path string, st *types.Stat) bool {
	if fs.FileMode(st.Mode)&(fs.ModeSocket|fs.ModeIrregular) != 0 {
		return false
	}
	e := checksum.EntryOf(st)
	for len(l.before) > 0 && fsutil.ComparePath(l.before[0].Path, path) < 0 {
		l.before = l.before[1:]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Kind == checksum.File && st.Linkname != "" {
		if i, ok := l.list.Find(st.Linkname); ok { // it is the same file, of the same size
			e.Header = l.list[i].Header
		}
	}
	if len(l.before) > 0 && l.before[0].Path == path {
		if old := &l.before[0]; old.Kind == e.Kind && old.Header == e.Header {
			e.Content, e.Hashed = old.Content, old.Hashed
		}
	}
	l.list = append(l.list, checksum.Named{Path: path, Entry: e})
	return true
}

func (l *listing) hasher(*types.Stat) (hash.Hash, error) { return sha256.New(), nil }

// notify is called for every entry that changed. What was known of it before is no longer true.
func (l *listing) notify(kind fsutil.ChangeKind, path string, st *types.Stat, dgst digest.Digest) error {
	if kind == fsutil.ChangeKindDelete || st == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.list.Find(path)
	if !ok || l.list[i].Kind != checksum.File {
		return nil
	}
	e := &l.list[i]
	n, err := hex.Decode(e.Content[:], []byte(dgst.Encoded()))
	e.Hashed = err == nil && n == len(e.Content)
	return nil
}

const (
	// maxTrees and maxSums bound what is remembered: some 200 bytes for every entry.
	maxTrees = 64
	maxSums  = 1 << 19
)

// sumCache remembers the entries of the trees that are kept, by the id of the record. Digests that
// it forgets are made from the files again.
type sumCache struct {
	mu      sync.Mutex
	trees   *simplelru.LRU[string, checksum.List]
	entries int
}

func newSumCache() *sumCache {
	c := &sumCache{}
	// The only error is a size below one.
	c.trees, _ = simplelru.NewLRU(maxTrees, func(_ string, l checksum.List) { c.entries -= len(l) })
	return c
}

// take returns the entries of a tree and forgets them: the tree is about to change.
func (c *sumCache) take(id string) checksum.List {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, _ := c.trees.Peek(id)
	c.trees.Remove(id)
	return l
}

func (c *sumCache) put(id string, l checksum.List) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trees.Remove(id)
	c.entries += len(l)
	c.trees.Add(id, l)
	for c.entries > maxSums && c.trees.Len() > 1 {
		c.trees.RemoveOldest()
	}
}
