// Package boltfile is the rule for bbolt files of the state that are damaged.
//
// Everything in the state can be made again. So a file that a disk has damaged is set aside, for
// who wants to look into it, and the program goes on with an empty one; what other files say of
// the things that are lost is dropped when it is compared. A file that cannot be read for another
// reason, or has been written by a newer program, is not touched.
//
// Files are looked at page by page before bbolt sees them, see verify.go. One that gets damaged
// while it is open gives an error of kind ErrDamaged where bbolt would end the program.
package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	"go.etcd.io/bbolt"
	errbolt "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

const (
	// lockTimeout is how long to wait for another process to let go of the file.
	lockTimeout = 2 * time.Second
	// closeTimeout is how long a file that is damaged may take to be closed.
	closeTimeout = time.Second
)

// DB is a file that is open.
type DB struct {
	*bbolt.DB
	// damaged is set when a transaction has not ended as it should.
	damaged atomic.Bool
	// writing is held by Update.
	writing sync.Mutex
}

// Open opens a bbolt file and has init make its buckets, if it is not nil. One that is damaged, also one
// whose buckets are none, is set aside and an empty one is made.
func Open(path string, init func(*bbolt.Tx) error) (*DB, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	db, err := open(path, init)
	if !errors.Is(err, ErrDamaged) && !errors.Is(err, errbolt.ErrIncompatibleValue) {
		return db, err
	}
	if err := SetAside(path, err); err != nil {
		return nil, err
	}
	return open(path, init)
}

func open(path string, init func(*bbolt.Tx) error) (*DB, error) {
	db := &DB{}
	err := guard(func() (err error) {
		db.DB, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: lockTimeout,
			// The list of free pages is found out when the file is opened, from what is
			// used: less to write each time and nothing to be wrong after a crash.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
			NoStatistics:   true,
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if init == nil {
		return db, nil
	}
	if err := db.Update(init); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

// Check sets the file aside if it is damaged. A file that is not there is not.
func Check(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return err // to be told by who opens it
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil // who has it open has looked at it
	case err != nil:
		return fmt.Errorf("lock %s: %w", path, err)
	}
	err = verify(f)
	if errors.Is(err, ErrDamaged) {
		return SetAside(path, err)
	}
	return err
}

// SetAside renames a file that is damaged, for the given reason. The one that was set aside before goes.
func SetAside(path string, cause error) error {
	others, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	prefix := path + ".damaged-"
	aside := fmt.Sprint(prefix, time.Now().UnixNano())
	log.L.WithError(cause).Errorf("%s is damaged, set aside as %s", path, aside)
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	for _, e := range others {
		old := filepath.Join(filepath.Dir(path), e.Name())
		if !strings.HasPrefix(old, prefix) {
			continue
		}
		if err := os.Remove(old); err != nil {
			log.L.WithError(err).Warn("what is left of a damaged file stays")
		}
	}
	return nil
}

// View reads, as that of bbolt.
func (db *DB) View(fn func(*bbolt.Tx) error) error {
	return db.guard(func() error { return db.DB.View(fn) })
}

// Update writes, as that of bbolt.
func (db *DB) Update(fn func(*bbolt.Tx) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	if db.damaged.Load() {
		return damagedf("it was not written to")
	}
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	returned := false
	defer func() {
		if !returned {
			_ = tx.Rollback() // fn panics
		}
	}()
	err = db.guard(func() error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
	returned = true
	if err == nil || errors.Is(err, ErrDamaged) {
		// To roll back, bbolt reads all pages, and ends the program if it does not like one: a
		// transaction that has met damage keeps its lock.
		return err
	}
	if rerr := tx.Rollback(); !errors.Is(rerr, errbolt.ErrTxClosed) {
		err = errors.Join(err, rerr)
	}
	return err
}

// Close closes the file. If it is damaged, a transaction may have kept its lock: then it stays open.
func (db *DB) Close() error {
	if !db.damaged.Load() {
		return db.guard(db.DB.Close)
	}
	done := make(chan error, 1)
	go func() { done <- guard(db.DB.Close) }()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return damagedf("it cannot be closed")
	}
}

func (db *DB) guard(fn func() error) error {
	err := guard(fn)
	if errors.Is(err, ErrDamaged) {
		db.damaged.Store(true)
	}
	return err
}

// guard turns a panic of bbolt about what it reads into an error, also that of a file which is
// shorter than it was. Other panics are faults of the caller's code, and go on.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover(); {
		case r == nil:
		case isFault(r) || raisedByBolt():
			err = damagedf("%v", r)
		default:
			panic(r)
		}
	}()
	return fn()
}

// isFault tells whether a panic is that of memory which cannot be read: what a transaction gives away is
// in the file, so who reads it may be anybody.
func isFault(r any) bool {
	_, ok := r.(interface{ Addr() uintptr })
	return ok
}

// raisedByBolt tells whether the panic that is being recovered from began in the code of bbolt.
func raisedByBolt() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])])
	panics := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panics = true
		case panics && !strings.HasPrefix(f.Function, "runtime."):
			return strings.HasPrefix(f.Function, "go.etcd.io/bbolt")
		}
		if !more {
			return false
		}
	}
}
