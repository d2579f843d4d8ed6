package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
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
	db   *bbolt.DB

	mu sync.Mutex
	// waiting are the operations that are not on disk yet, in order; records and blobs are what
	// they lead to. A nil record is deleted.
	waiting []operation
	size    int
	seq     int64
	records map[string]*Record
	blobs   map[digest.Digest][]byte
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
	t := &table{dir: dir, records: map[string]*Record{}, blobs: map[digest.Digest][]byte{}, hidden: map[string]bool{}}
	if err := os.MkdirAll(t.blobDir(), 0o700); err != nil {
		return nil, err
	}
	err := t.open()
	if errors.Is(err, errDamaged) {
		err = t.replace(err)
	}
	if err != nil && t.db != nil {
		err = errors.Join(err, t.closeDB())
	}
	return t, err
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

// open opens the file and drops what is not whole.
func (t *table) open() error {
	if err := verify(t.path()); err != nil {
		if err := setAside(t.path(), err); err != nil {
			return err
		}
	}
	db, err := boltfile.Open(t.path())
	if err != nil {
		return err
	}
	t.db = db
	t.count = 0
	return guard(func() error { return db.Update(t.load) })
}

// replace sets the file aside and makes an empty one.
func (t *table) replace(cause error) error {
	t.file.Lock()
	defer t.file.Unlock()
	// What it says of a damaged file is of no interest.
	_ = t.closeDB()
	if err := setAside(t.path(), cause); err != nil {
		return err
	}
	return t.open()
}

func setAside(path string, cause error) error {
	aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().UnixNano())
	log.L.WithError(cause).Errorf("%s is damaged, set aside as %s", path, aside)
	return os.Rename(path, aside)
}

// verify looks at every page of a file, if there is one, before it is opened for writing: bbolt does
// that too, but ends the program if it does not like one.
func verify(path string) error {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return nil //nolint:nilerr // to be told by who opens it
	}
	return guard(func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
		if err != nil {
			return nil
		}
		defer db.Close()
		return db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(_, _ []byte) error { return nil })
			})
		})
	})
}

// closeDB closes the file. A transaction that ended with a panic may have kept its lock.
func (t *table) closeDB() error {
	done := make(chan error, 1)
	go func() { done <- guard(t.db.Close) }()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errDamaged
	}
}

// guard turns a panic of bbolt about what it reads into an error, also that of a file which is
// shorter than it was.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return fn()
}

var errDamaged = errors.New("history file is damaged")

// load counts the records and drops those that cannot be read or have lost blobs, then the blobs
// that nobody holds.
func (t *table) load(tx *bbolt.Tx) error {
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
	for dgst := range files {
		if !held[dgst] {
			t.removeFile(dgst)
		}
	}
	return nil
}

// files lists the long blobs.
func (t *table) files() (map[digest.Digest]bool, error) {
	entries, err := os.ReadDir(t.blobDir())
	if err != nil {
		return nil, err
	}
	files := map[digest.Digest]bool{}
	for _, e := range entries {
		files[digest.NewDigestFromEncoded(digest.Canonical, e.Name())] = true
	}
	return files, nil
}

// blobPath is the path of a long blob. The digest must be valid.
func (t *table) blobPath(dgst digest.Digest) string {
	return filepath.Join(t.blobDir(), dgst.Encoded())
}

func (t *table) removeFile(dgst digest.Digest) {
	if err := os.Remove(t.blobPath(dgst)); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.L.WithError(err).Error("a blob of the history stays")
	}
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
	return guard(func() error { return t.db.View(fn) })
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

// put stores a record with blobs that are new.
func (t *table) put(rec *Record, blobs []blob) error {
	value, err := proto.Marshal(rec)
	if err != nil {
		return err
	}
	if value == nil {
		value = []byte{}
	}
	known, err := t.get(rec.GetRef())
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known == nil {
		t.count++
	}
	t.records[rec.GetRef()] = rec
	for _, b := range blobs {
		if b.data != nil {
			t.blobs[b.digest] = b.data
		}
	}
	t.queue(operation{ref: rec.GetRef(), value: value, blobs: blobs})
	return nil
}

// hide makes a record that is there disappear. Delete is called for it later.
func (t *table) hide(ref string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count--
	t.hidden[ref] = true
	delete(t.records, ref)
}

// delete removes a record that is there, or hidden, and the blobs that no other holds.
func (t *table) delete(ref string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hidden[ref] {
		t.count--
	}
	delete(t.hidden, ref)
	t.records[ref] = nil
	t.queue(operation{ref: ref})
}

// queue has an operation done. The caller holds mu.
func (t *table) queue(op operation) {
	t.seq++
	op.seq = t.seq
	t.waiting = append(t.waiting, op)
	t.size += op.size()
	t.flushIn(delay)
	n := 0
	for left := t.size; left > maxWaiting && n < len(t.waiting)-1; n++ {
		left -= t.waiting[n].size()
		log.L.WithField("ref", t.waiting[n].ref).Error("what was to be written of a build is lost")
	}
	if n > 0 {
		t.settle(t.waiting[n-1].seq)
	}
}

func (op operation) size() int {
	n := len(op.ref) + len(op.value)
	for _, b := range op.blobs {
		n += len(b.data)
	}
	return n
}

// flushIn has what is waiting written after a while. The caller holds mu.
func (t *table) flushIn(wait time.Duration) {
	if t.timer == nil && !t.closed {
		t.timer = time.AfterFunc(wait, func() { _ = t.flush() })
	}
}

// flush writes what is waiting.
func (t *table) flush() error {
	t.flushing.Lock()
	defer t.flushing.Unlock()
	t.mu.Lock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	ops := slices.Clone(t.waiting)
	t.mu.Unlock()
	if len(ops) == 0 {
		return nil
	}
	dead, err := t.apply(ops)
	if errors.Is(err, errDamaged) {
		if err = t.replace(err); err == nil {
			dead, err = t.apply(ops)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		log.L.WithError(err).Error("the history of builds cannot be written, trying again")
		t.flushIn(retryDelay)
		return err
	}
	t.settle(ops[len(ops)-1].seq)
	for _, dgst := range dead {
		if !t.wanted(dgst) {
			t.removeFile(dgst)
		}
	}
	return nil
}

// settle forgets operations up to one. The caller holds mu.
func (t *table) settle(last int64) {
	n := 0
	for n < len(t.waiting) && t.waiting[n].seq <= last {
		n++
	}
	done := t.waiting[:n]
	t.waiting = slices.Clone(t.waiting[n:])
	t.size = 0
	again := map[string]bool{}
	fresh := map[digest.Digest]bool{}
	for _, op := range t.waiting {
		t.size += op.size()
		again[op.ref] = true
		for _, b := range op.blobs {
			fresh[b.digest] = true
		}
	}
	for _, op := range done {
		if !again[op.ref] {
			delete(t.records, op.ref)
		}
		for _, b := range op.blobs {
			if !fresh[b.digest] {
				delete(t.blobs, b.digest)
			}
		}
	}
}

// wanted tells whether a record that is waiting has a blob. The caller holds mu.
func (t *table) wanted(dgst digest.Digest) bool {
	return slices.ContainsFunc(t.waiting, func(op operation) bool {
		return slices.ContainsFunc(op.blobs, func(b blob) bool { return b.digest == dgst })
	})
}

// apply does operations in one transaction and returns the blobs that nobody holds any more.
func (t *table) apply(ops []operation) (dead []digest.Digest, err error) {
	err = guard(func() error {
		return t.db.Update(func(tx *bbolt.Tx) error {
			dead = nil
			for _, op := range ops {
				if op.value == nil {
					gone, err := remove(tx, op.ref)
					if err != nil {
						return err
					}
					dead = append(dead, gone...)
					continue
				}
				if err := add(tx, op); err != nil {
					return err
				}
			}
			dead = slices.DeleteFunc(dead, func(d digest.Digest) bool { return isHeld(tx, d) })
			return nil
		})
	})
	return dead, err
}

func add(tx *bbolt.Tx, op operation) error {
	for _, b := range op.blobs {
		if b.data != nil {
			if err := tx.Bucket(blobBucket).Put([]byte(b.digest), b.data); err != nil {
				return err
			}
		}
		if err := tx.Bucket(holderBucket).Put(holderKey(b.digest, op.ref), []byte{}); err != nil {
			return err
		}
		if err := tx.Bucket(heldBucket).Put(append(heldPrefix(op.ref), b.digest...), []byte{}); err != nil {
			return err
		}
	}
	return tx.Bucket(recordBucket).Put([]byte(op.ref), op.value)
}

func holderKey(dgst digest.Digest, ref string) []byte { return []byte(string(dgst) + "\x00" + ref) }

// heldPrefix begins the keys of all blobs of a record, each followed by the digest.
func heldPrefix(ref string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(ref))), ref...)
}

// remove deletes a record and the short blobs that only it held; it returns all of those.
func remove(tx *bbolt.Tx, ref string) ([]digest.Digest, error) {
	if err := tx.Bucket(recordBucket).Delete([]byte(ref)); err != nil {
		return nil, err
	}
	var mine []digest.Digest
	held, prefix := tx.Bucket(heldBucket), heldPrefix(ref)
	c := held.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		mine = append(mine, digest.Digest(k[len(prefix):]))
	}
	var gone []digest.Digest
	for _, dgst := range mine {
		err := errors.Join(held.Delete(append(prefix, dgst...)), tx.Bucket(holderBucket).Delete(holderKey(dgst, ref)))
		if err != nil {
			return nil, err
		}
		if !isHeld(tx, dgst) {
			gone = append(gone, dgst)
			if err := tx.Bucket(blobBucket).Delete([]byte(dgst)); err != nil {
				return nil, err
			}
		}
	}
	return gone, nil
}

// isHeld tells whether a record has a blob.
func isHeld(tx *bbolt.Tx, dgst digest.Digest) bool {
	k, _ := tx.Bucket(holderBucket).Cursor().Seek(holderKey(dgst, ""))
	return bytes.HasPrefix(k, holderKey(dgst, ""))
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
	return errors.Join(err, t.closeDB())
}
