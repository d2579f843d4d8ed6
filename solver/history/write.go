package history

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/snapshot/boltfile"
)

// put stores a record with blobs that are new: those that keep and adopt have returned.
func (t *table) put(rec *Record, blobs []blob) error {
	err := t.tryPut(rec, blobs)
	if err != nil {
		t.giveBack(blobs)
	}
	return err
}

func (t *table) tryPut(rec *Record, blobs []blob) error {
	value, err := proto.Marshal(rec)
	if err != nil {
		return err
	}
	if value == nil {
		value = []byte{}
	}
	known, err := t.get(rec.GetRef())
	if err != nil && !errors.Is(err, boltfile.ErrDamaged) {
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
		} else {
			t.unreserve(b.digest)
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
		t.loosen(t.waiting[n].blobs)
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
	if err := t.write(); err != nil {
		return err
	}
	return t.shrink()
}

// shrinkAbove is how large a file may be that holds nothing.
const shrinkAbove = 4 << 20

// shrink makes a new file if there are no records any more: bbolt never gives space back.
func (t *table) shrink() error {
	t.mu.Lock()
	empty := t.count == 0 && len(t.hidden) == 0 && t.broken == nil && !t.closed
	t.mu.Unlock()
	if !empty {
		return nil
	}
	if st, err := os.Stat(t.path()); err != nil || st.Size() <= shrinkAbove {
		return err
	}
	t.file.Lock()
	defer t.file.Unlock()
	err := t.db.Close()
	if err == nil {
		err = os.Remove(t.path())
	}
	if err == nil {
		err = t.open()
	}
	if err != nil {
		log.L.WithError(err).Error("the history of builds cannot be opened, trying again")
		t.mu.Lock()
		defer t.mu.Unlock()
		t.broken = err
		t.flushIn(retryDelay)
	}
	return err
}

// write does what is waiting. The caller holds flushing.
func (t *table) write() error {
	t.mu.Lock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	ops, loose, broken := slices.Clone(t.waiting), t.loose, t.broken
	t.mu.Unlock()
	var dead []digest.Digest
	err := broken
	if err == nil && len(ops)+len(loose) > 0 {
		dead, err = t.apply(ops, loose)
	}
	if broken != nil || errors.Is(err, boltfile.ErrDamaged) {
		if err = t.replace(err); err == nil {
			dead, err = t.apply(ops, loose)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		log.L.WithError(err).Error("the history of builds cannot be written, trying again")
		t.flushIn(retryDelay)
		return err
	}
	if len(ops) > 0 {
		t.settle(ops[len(ops)-1].seq)
	}
	t.loose = slices.Clone(t.loose[len(loose):])
	for _, dgst := range dead {
		if !t.wanted(dgst) {
			t.removeFile(dgst)
		}
	}
	return nil
}

// replace sets the file aside if it is damaged, and opens it or makes an empty one, for what is waiting.
func (t *table) replace(cause error) error {
	t.file.Lock()
	defer t.file.Unlock()
	// What it says of a damaged file is of no interest.
	_ = t.db.Close()
	if errors.Is(cause, boltfile.ErrDamaged) {
		if err := boltfile.SetAside(t.path(), cause); err != nil {
			return err
		}
	}
	err := t.open()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = err
	if err != nil {
		return err
	}
	for ref, rec := range t.records {
		if rec != nil && !t.hidden[ref] {
			t.count++
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

// wanted tells whether a record that is waiting or to come has a blob. The caller holds mu.
func (t *table) wanted(dgst digest.Digest) bool {
	return t.pending[dgst] > 0 || slices.ContainsFunc(t.waiting, func(op operation) bool {
		return slices.ContainsFunc(op.blobs, func(b blob) bool { return b.digest == dgst })
	})
}

// apply does operations in one transaction and returns the blobs, of those that they let go of and of the
// loose ones, that nobody holds any more.
func (t *table) apply(ops []operation, loose []digest.Digest) (dead []digest.Digest, err error) {
	err = t.db.Update(func(tx *bbolt.Tx) error {
		dead = slices.Clone(loose)
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
	return dead, err
}
