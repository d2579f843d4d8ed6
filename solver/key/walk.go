package key

import (
	"context"
	"encoding/hex"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Entry is all that is stored of a key.
type Entry struct {
	ID ID
	// Parts is empty for a root key.
	Parts   Parts
	Results []Result
	// Children is how many links lead from it to other keys.
	Children int
}

// ParseID reads the text of an ID.
func ParseID(text string) (ID, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(ID{}) {
		return ID{}, fmt.Errorf("%q is no key: %d hexadecimal digits are one", text, 2*len(ID{}))
	}
	return ID(b), nil
}

// Entry returns what is stored of a key; false if that is nothing.
func (s *Store) Entry(id ID) (Entry, bool) {
	rec := s.record(id)
	e := Entry{ID: id, Parts: Parts{Op: rec.op, Links: rec.links}, Results: s.Results(id), Children: rec.children}
	return e, len(e.Parts.Links)+len(e.Results)+e.Children > 0
}

// Owners returns the keys that have a result.
func (s *Store) Owners(result string) []ID { return s.owners(result) }

// Walk calls fn with all keys, in no order that means anything, until it fails or ctx ends. Those that
// come and go meanwhile may be left out. fn may take its time: nothing waits for it.
func (s *Store) Walk(ctx context.Context, fn func(Entry) error) error {
	s.Flush()
	// Root keys may have results and no record.
	for _, b := range []bucket{keysBucket, resultsBucket} {
		for after := ""; ; {
			ids, err := s.t.keysAfter(b, after)
			if err != nil || len(ids) == 0 {
				if err != nil {
					return err
				}
				break
			}
			after = ids[len(ids)-1]
			for _, key := range ids {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if len(key) != len(ID{}) {
					continue
				}
				id := ID([]byte(key))
				if raw, _ := s.t.get(keysBucket, key); b == resultsBucket && raw != nil {
					continue // told before
				}
				e, ok := s.Entry(id)
				if !ok {
					continue
				}
				if err := fn(e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// pageSize is how many keys are read at once: a transaction that lasts keeps the file from growing.
const pageSize = 1024

// keysAfter returns keys of a bucket on the disk that come after one, in order; none if it was the
// last.
func (t *table) keysAfter(b bucket, key string) (keys []string, err error) {
	err = t.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte{byte(b)}).Cursor()
		k, _ := c.Seek([]byte(key))
		if string(k) == key && key != "" {
			k, _ = c.Next()
		}
		for ; k != nil && len(keys) < pageSize; k, _ = c.Next() {
			keys = append(keys, string(k))
		}
		return nil
	})
	return keys, err
}
