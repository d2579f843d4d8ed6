// Package boltfile is the rule for bbolt files of the state that are damaged.
//
// Everything in the state can be made again. So a file that a disk has damaged is set aside, for
// who wants to look into it, and the program goes on with an empty one; what other files say of
// the things that are lost is dropped when it is compared. A file that cannot be read for another
// reason, or has been written by a newer program, is not touched.
package boltfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/log"
	"go.etcd.io/bbolt"
	errbolt "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long to wait for another process to let go of the file.
const lockTimeout = 5 * time.Second

// Open opens a bbolt file. One that is damaged is set aside and an empty one is made.
func Open(path string) (*bbolt.DB, error) {
	db, err := open(path)
	if err == nil || !damaged(path, err) {
		return db, err
	}
	aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().UnixNano())
	log.L.WithError(err).Errorf("%s is damaged, set aside as %s", path, aside)
	if err := os.Rename(path, aside); err != nil {
		return nil, err
	}
	return open(path)
}

func open(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout,
		// The list of free pages is found out when the file is opened, from what is
		// used: less to write each time and nothing to be wrong after a crash.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// damaged reports whether an error of opening a file means that its contents are none of bbolt's.
func damaged(path string, err error) bool {
	if errors.Is(err, errbolt.ErrInvalid) || errors.Is(err, errbolt.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	// A file shorter than its first two pages is reported without an error of its own.
	st, statErr := os.Stat(path)
	return statErr == nil && st.Mode().IsRegular() && st.Size() > 0 && st.Size() < int64(2*os.Getpagesize())
}

// Check sets the file aside if it is damaged. It is for files that somebody else opens.
func Check(path string) error {
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return nil
	}
	db, err := Open(path)
	if err != nil {
		return err
	}
	return db.Close()
}
