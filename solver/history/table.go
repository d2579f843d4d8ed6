package history

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/continuity"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/snapshot/boltfile"
)

const (
	// version is raised when the layout of the folder changes.
	version = "1"
	// delay is how long a write waits for company, retryDelay after the disk has refused it.
	delay      = 100 * time.Millisecond
	retryDelay = 5 * time.Second
	// maxWaiting is how many bytes may wait for a disk that refuses them. The oldest are lost then.
	maxWaiting = 32 << 20
)

var (
	// recordBucket holds records by ref, blobBucket short blobs by digest. Which record has which
	// blobs is in two buckets without values, for both ways: see holderKey and heldKey.
	recordBucket = []byte("_records")
	blobBucket   = []byte("blobs")
	holderBucket = []byte("holders")
	heldBucket   = []byte("held")
)

// table is the folder of a history: a bbolt file and the files of long blobs. What is written is
// visible at once and on disk a moment later.
type table struct {
	dir string

	// flushing is held while a transaction runs that writes.
	flushing sync.Mutex
	// file is held for writing while db is replaced or closed.
	file sync.RWMutex
	db   *boltfile.DB

	mu sync.Mutex
	// broken is set when the file was found to be damaged or cannot be opened, until it or another is open.
	broken error
	// waiting are the operations that are not on disk yet, in order; records and blobs are what
	// they lead to. A nil record is deleted.
	waiting []operation
	size    int
	seq     int64
	records map[string]*Record
	blobs   map[digest.Digest][]byte
	// pending counts the holders to be of long blobs that are in no operation yet. Loose are long blobs
	// that may have no holder.
	pending map[digest.Digest]int
	loose   []digest.Digest
	// checked are the long blobs that are known to be what their digest says.
	checked map[digest.Digest]bool
	// hidden are the refs of records that are deleted for all but the blobs.
	hidden map[string]bool
	count  int
	timer  *time.Timer
	closed bool
}

// operation stores a record with its blobs, or deletes it.
type operation struct {
	seq   int64
	ref   string
	value []byte // nil deletes
	blobs []blob
}

// blob is content of a record: short ones with their bytes.
type blob struct {
	digest digest.Digest
	data   []byte
}

func openTable(dir string) (*table, error) {
	if err := claim(dir); err != nil {
		return nil, err
	}
	t := &table{
		dir: dir, records: map[string]*Record{}, blobs: map[digest.Digest][]byte{}, hidden: map[string]bool{},
		pending: map[digest.Digest]int{}, checked: map[digest.Digest]bool{},
	}
	if err := os.MkdirAll(t.blobDir(), 0o700); err != nil {
		return nil, err
	}
	return t, t.open()
}

// claim makes the folder ours, or makes sure that it is.
func claim(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "version")
	got, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return continuity.AtomicWriteFile(file, []byte(version+"\n"), 0o600)
	case err != nil:
		return err
	}
	if v := strings.TrimSpace(string(got)); v != version {
		return fmt.Errorf("%s holds a history of version %q, this program reads version %s", dir, v, version)
	}
	return nil
}

func (t *table) path() string    { return filepath.Join(t.dir, "history.db") }
func (t *table) blobDir() string { return filepath.Join(t.dir, "blobs") }

// open opens the file, or makes one, and drops what is not whole. If it fails, the one that was closed
// stays, which refuses what is asked of it. The caller holds file or is the only one.
func (t *table) open() error {
	db, err := boltfile.Open(t.path(), t.load)
	if err != nil {
		return err
	}
	t.db = db
	return nil
}

// load counts the records and drops those that cannot be read or have lost blobs, then the blobs
// that nobody holds.
func (t *table) load(tx *bbolt.Tx) error {
	t.count = 0
	for _, name := range [][]byte{recordBucket, blobBucket, holderBucket, heldBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	files, err := t.files()
	if err != nil {
		return err
	}
	held := map[digest.Digest]bool{}
	bad := map[string]bool{}
	err = tx.Bucket(holderBucket).ForEach(func(k, _ []byte) error {
		name, ref, _ := bytes.Cut(k, []byte{0})
		dgst := digest.Digest(name)
		held[dgst] = true
		if !files[dgst] && tx.Bucket(blobBucket).Get(name) == nil || tx.Bucket(recordBucket).Get(ref) == nil {
			bad[string(ref)] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(recordBucket).ForEach(func(k, v []byte) error {
		var rec Record
		if proto.Unmarshal(v, &rec) != nil || rec.GetRef() != string(k) {
			bad[string(k)] = true
		}
		t.count++
		return nil
	})
	if err != nil {
		return err
	}
	for ref := range bad {
		log.L.WithField("ref", ref).Warn("the record of a build is not whole and is dropped")
		if tx.Bucket(recordBucket).Get([]byte(ref)) != nil {
			t.count--
		}
		if _, err := remove(tx, ref); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for dgst := range files {
		if !held[dgst] && !t.wanted(dgst) {
			t.removeFile(dgst)
		}
	}
	return nil
}

// len returns how many records there are.
func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// get returns a record, nil if there is none.
func (t *table) get(ref string) (*Record, error) {
	t.mu.Lock()
	rec, ok := t.records[ref]
	ok = ok || t.hidden[ref]
	t.mu.Unlock()
	if ok {
		return rec, nil
	}
	err := t.view(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(recordBucket).Get([]byte(ref)); v != nil {
			rec = &Record{}
			return proto.Unmarshal(v, rec)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// view reads the file.
func (t *table) view(fn func(*bbolt.Tx) error) error {
	t.file.RLock()
	defer t.file.RUnlock()
	err := t.db.View(fn)
	if errors.Is(err, boltfile.ErrDamaged) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.broken = err
		t.flushIn(0)
	}
	return err
}

// each calls fn for every record, in any order. It must not call the table.
func (t *table) each(fn func(*Record)) error {
	// Before the transaction, so that nothing is in neither.
	t.mu.Lock()
	seen := maps.Clone(t.records)
	for ref := range t.hidden {
		seen[ref] = nil
	}
	t.mu.Unlock()
	err := t.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(recordBucket).ForEach(func(k, v []byte) error {
			if _, ok := seen[string(k)]; ok {
				return nil
			}
			rec := &Record{}
			if proto.Unmarshal(v, rec) == nil {
				fn(rec)
			}
			return nil
		})
	})
	for _, ref := range slices.Sorted(maps.Keys(seen)) {
		if rec := seen[ref]; rec != nil {
			fn(rec)
		}
	}
	return err
}

// close writes what is left and closes the file.
func (t *table) close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	err := t.flush()
	t.mu.Lock()
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.file.Lock()
	defer t.file.Unlock()
	return errors.Join(err, t.db.Close())
}
