// Package recordstore keeps the cache's records in a bbolt file, many writes in one transaction.
//
// A write is visible at once to this process and on disk a moment later, together with all others
// of that moment. So a crash loses the newest writes, never an older one without a newer one; the
// owner of the records has to check what it reads after a crash against what the records stand for.
package recordstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/log"
	"go.etcd.io/bbolt"

	"github.com/openbuildkit/buildkit/snapshot/boltfile"
)

// schema is raised when an older program could not read the file, or we could not read its.
const schema = 1

const (
	// delay is how long a write waits for company.
	delay = 50 * time.Millisecond
	// usageDelay is how long the usage of records does, which changes with every build, also with
	// those that change nothing else.
	usageDelay = 10 * time.Second
	// retryDelay is how long writes wait after the disk has refused them.
	retryDelay = time.Second
	// maxPending is how many bytes of values may wait.
	maxPending = 16 << 20
)

var (
	metaBucket   = []byte("meta")
	recordBucket = []byte("records")
	usageBucket  = []byte("usage")
	valueBucket  = []byte("values")

	versionKey = []byte("version")
	cleanKey   = []byte("clean")
)

// Store is one file. Methods may be called concurrently.
type Store struct {
	db    *boltfile.DB
	clean bool

	// flushing is held while a transaction runs, so that writes reach the disk in order.
	flushing sync.Mutex

	mu      sync.Mutex
	pending batch
	// inFlight is being written.
	inFlight batch
	timer    *time.Timer
	due      time.Time // of the timer
	closed   bool
}

// batch is writes by bucket and key; a nil value deletes.
type batch struct {
	records map[string][]byte
	usage   map[string][]byte
	// values have the key of a record, a zero byte and the key of the value.
	values map[string][]byte
	size   int
}

func newBatch() batch {
	return batch{map[string][]byte{}, map[string][]byte{}, map[string][]byte{}, 0}
}

func (b batch) empty() bool { return len(b.records)+len(b.usage)+len(b.values) == 0 }

// Open opens the file, which is made if missing or damaged.
func Open(path string) (*Store, error) {
	s := &Store{pending: newBatch(), inFlight: newBatch()}
	var err error
	if s.db, err = boltfile.Open(path, s.init); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) init(tx *bbolt.Tx) error {
	for _, name := range [][]byte{metaBucket, recordBucket, usageBucket, valueBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(metaBucket)
	if v := meta.Get(versionKey); v == nil {
		s.clean = true
		if err := meta.Put(versionKey, []byte{schema}); err != nil {
			return err
		}
	} else if len(v) != 1 || v[0] != schema {
		return fmt.Errorf("schema version %x is not known", v)
	} else {
		s.clean = meta.Get(cleanKey) != nil
	}
	return meta.Delete(cleanKey)
}

// Clean reports whether the file was closed by Close when it was last used.
func (s *Store) Clean() bool { return s.clean }

// Records calls fn for every record with its usage, nil if none was stored, in the order of their
// ids. The slices are valid until fn returns.
func (s *Store) Records(fn func(id string, record, usage []byte) error) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		usage := tx.Bucket(usageBucket)
		return tx.Bucket(recordBucket).ForEach(func(k, v []byte) error {
			return fn(string(k), v, usage.Get(k))
		})
	})
}

// Indexes calls fn for every stored value with its index, which may be empty. Values that cannot be read are
// left out.
func (s *Store) Indexes(fn func(id, key, index string)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(valueBucket).ForEach(func(k, v []byte) error {
			id, key, ok := bytes.Cut(k, []byte{0})
			if index, _, err := splitValue(v); ok && err == nil {
				fn(string(id), string(key), string(index))
			} else {
				log.L.Warnf("a value of a cache record, %q, cannot be read", k)
			}
			return nil
		})
	})
}

// PutRecord stores a record.
func (s *Store) PutRecord(id string, record []byte) {
	s.put(delay, func(b *batch) { b.records[id] = record; b.size += len(record) })
}

// PutUsage stores the usage of a record. It may take longer to be on disk than anything else.
func (s *Store) PutUsage(id string, usage []byte) {
	s.put(usageDelay, func(b *batch) { b.usage[id] = usage })
}

// PutValue stores a value beside a record; nil deletes it.
func (s *Store) PutValue(id, key string, value []byte, index string) {
	var stored []byte
	if value != nil {
		stored = binary.AppendUvarint(make([]byte, 0, len(index)+len(value)+4), uint64(len(index)))
		stored = append(append(stored, index...), value...)
	}
	s.put(delay, func(b *batch) { b.values[id+"\x00"+key] = stored; b.size += len(stored) })
}

// DeleteRecord deletes a record, its usage and the values with the given keys.
func (s *Store) DeleteRecord(id string, valueKeys []string) {
	s.put(delay, func(b *batch) {
		b.records[id], b.usage[id] = nil, nil
		for _, key := range valueKeys {
			b.values[id+"\x00"+key] = nil
		}
	})
}

// Value returns a value, nil if there is none. The caller may keep it.
func (s *Store) Value(id, key string) ([]byte, error) {
	k := id + "\x00" + key
	s.mu.Lock()
	stored, ok := s.pending.values[k]
	if !ok {
		stored, ok = s.inFlight.values[k]
	}
	s.mu.Unlock()
	if !ok {
		err := s.db.View(func(tx *bbolt.Tx) error {
			stored = bytes.Clone(tx.Bucket(valueBucket).Get([]byte(k)))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if stored == nil {
		return nil, nil
	}
	_, value, err := splitValue(stored)
	return bytes.Clone(value), err
}

func splitValue(stored []byte) (index, value []byte, err error) {
	n, width := binary.Uvarint(stored)
	if width <= 0 || n > uint64(len(stored)-width) {
		return nil, nil, errors.New("value is damaged")
	}
	return stored[width : width+int(n)], stored[width+int(n):], nil
}

func (s *Store) put(wait time.Duration, change func(*batch)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	change(&s.pending)
	if s.pending.size > maxPending {
		wait = 0
	}
	s.flushIn(wait)
}

// flushIn has what is pending written after a while, if not before. The caller holds mu.
func (s *Store) flushIn(wait time.Duration) {
	switch due := time.Now().Add(wait); {
	case s.timer == nil:
		s.timer, s.due = time.AfterFunc(wait, s.background), due
	case due.Before(s.due):
		s.timer.Reset(wait)
		s.due = due
	}
}

func (s *Store) background() {
	if err := s.Flush(); err != nil {
		log.L.WithError(err).Error("cache records cannot be stored, trying again")
	}
}

// Flush writes everything stored so far to disk. After an error all of it is still to be written,
// and is after a while.
func (s *Store) Flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	b := s.pending
	s.pending, s.inFlight = newBatch(), b
	s.mu.Unlock()
	var err error
	if !b.empty() {
		err = s.db.Update(b.write)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.pending.under(b)
		if !s.closed {
			s.flushIn(retryDelay)
		}
	}
	s.inFlight = newBatch()
	return err
}

func (b batch) write(tx *bbolt.Tx) error {
	for name, m := range map[string]map[string][]byte{
		string(recordBucket): b.records, string(usageBucket): b.usage, string(valueBucket): b.values,
	} {
		bucket := tx.Bucket([]byte(name))
		for k, v := range m {
			var err error
			if v == nil {
				err = bucket.Delete([]byte(k))
			} else {
				err = bucket.Put([]byte(k), v)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// under adds the older writes of o that are not overwritten.
func (b *batch) under(o batch) {
	merge := func(dst, src map[string][]byte) {
		for k, v := range src {
			if _, ok := dst[k]; !ok {
				dst[k] = v
			}
		}
	}
	merge(b.records, o.records)
	merge(b.usage, o.usage)
	merge(b.values, o.values)
	b.size += o.size
}

// Close writes what is left and closes the file. It may be called more than once.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	err := s.Flush()
	if err == nil {
		err = s.db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(metaBucket).Put(cleanKey, []byte{1})
		})
	}
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	return errors.Join(err, s.db.Close())
}
