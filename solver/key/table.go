package key

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/openbuildkit/buildkit/snapshot/boltfile"
)

// table is a map on disk with a write buffer in front: reads see writes at once, writes reach the
// disk many at a time. A crash loses the writes of the last moment, which is a few cache misses.
type table struct {
	db *boltfile.DB

	// flushing is held while writes are on their way to the disk; it is taken before mu.
	flushing sync.Mutex

	mu sync.RWMutex
	// fresh takes writes; writing is what a flush is busy with. A nil value deletes.
	fresh, writing map[cell][]byte
	wake           chan struct{}
	closed         bool
	err            error
}

type cell struct {
	bucket bucket
	key    string
}

type bucket byte

const (
	keysBucket    bucket = 'k' // key -> record
	linksBucket   bucket = 'l' // hash of a link -> keys it leads to
	resultsBucket bucket = 'r' // key -> results
	ownersBucket  bucket = 'o' // result id -> keys that have it
)

var buckets = []bucket{keysBucket, linksBucket, resultsBucket, ownersBucket}

// schemaVersion changes when the meaning of anything stored changes; a store of another version
// is set aside and begun anew, which costs cached results, never a build.
const schemaVersion = "1"

// flushDelay is how long writes are gathered before they are written together.
const flushDelay = 50 * time.Millisecond

// maxFresh bounds the write buffer: beyond it, writers wait for the disk.
const maxFresh = 1 << 16

func openTable(path string) (*table, error) {
	db, err := boltfile.Open(path, makeBuckets)
	var other *versionError
	if errors.As(err, &other) {
		if err := boltfile.SetAside(path, err); err != nil {
			return nil, fmt.Errorf("key store %s: %w", path, err)
		}
		db, err = boltfile.Open(path, makeBuckets)
	}
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	return &table{db: db, fresh: map[cell][]byte{}, wake: make(chan struct{}, 1)}, nil
}

// versionError says that a store has another schema.
type versionError struct{ version []byte }

// Error names both.
func (e *versionError) Error() string {
	return fmt.Sprintf("schema version %q is not %s", e.version, schemaVersion)
}

func makeBuckets(tx *bolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists([]byte("meta"))
	if err != nil {
		return err
	}
	if v := meta.Get([]byte("version")); v != nil && string(v) != schemaVersion {
		return &versionError{bytes.Clone(v)}
	}
	for _, b := range buckets {
		if _, err := tx.CreateBucketIfNotExists([]byte{byte(b)}); err != nil {
			return err
		}
	}
	return meta.Put([]byte("version"), []byte(schemaVersion))
}

// get returns the value of a cell, nil if there is none. The caller must not change it.
func (t *table) get(b bucket, key string) ([]byte, error) {
	c := cell{b, key}
	t.mu.RLock()
	v, ok := t.fresh[c]
	if !ok {
		v, ok = t.writing[c]
	}
	t.mu.RUnlock()
	if ok {
		return v, nil
	}
	var out []byte
	err := t.db.View(func(tx *bolt.Tx) error {
		out = append([]byte(nil), tx.Bucket([]byte{byte(b)}).Get([]byte(key))...)
		return nil
	})
	if len(out) == 0 {
		out = nil
	}
	return out, err
}

// put sets the value of a cell; nil deletes it.
func (t *table) put(b bucket, key string, v []byte) {
	t.mu.Lock()
	t.fresh[cell{b, key}] = v
	full := len(t.fresh) >= maxFresh
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	if full {
		t.flush()
	}
}

// run writes until ctx ends.
func (t *table) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(flushDelay):
		}
		t.flush()
	}
}

// pending tells whether there is something that is not on the disk.
func (t *table) pending() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.fresh) > 0 || len(t.writing) > 0
}

// flush writes what there is. A failed write is kept and tried again with the next one: the
// buffer is as good as the disk until the process ends.
func (t *table) flush() {
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.mu.Lock()
	if len(t.fresh) == 0 || t.closed {
		t.mu.Unlock()
		return
	}
	t.writing, t.fresh = t.fresh, map[cell][]byte{}
	batch := t.writing
	t.mu.Unlock()

	err := t.db.Update(func(tx *bolt.Tx) error {
		for c, v := range batch {
			bkt := tx.Bucket([]byte{byte(c.bucket)})
			if len(v) == 0 {
				if err := bkt.Delete([]byte(c.key)); err != nil {
					return err
				}
				continue
			}
			if err := bkt.Put([]byte(c.key), v); err != nil {
				return err
			}
		}
		return nil
	})

	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	if err != nil {
		for c, v := range batch {
			if _, newer := t.fresh[c]; !newer {
				t.fresh[c] = v
			}
		}
	}
	t.writing = nil
}

func (t *table) close() error {
	t.flush()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	err := t.err
	if cerr := t.db.Close(); err == nil {
		err = cerr
	}
	return err
}
