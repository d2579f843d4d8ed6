package history

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openbuildkit/buildkit/solver/feed"
)

// A build that takes longer than a moment is noted in the folder of the recordings: its record so far, in
// a file beside that of its recording, which is saved now and then. The daemon that finds a note when it
// starts makes a record of it. Nothing is synced: a note is to outlive the daemon, not the machine.
const (
	// noteAfter is how old a build is that is noted: most are over by then, and cost nothing.
	noteAfter = time.Second
	// noteEvery bounds how much of what a build tells is lost.
	noteEvery  = 5 * time.Second
	noteSuffix = ".build"
)

// interrupted is the error of builds that their daemon did not live to end.
const interrupted = "the daemon ended while the build was running"

// note is what is on the disk of a build that runs.
type note struct {
	timer *time.Timer
	// over is set when the build has ended.
	over atomic.Bool

	mu sync.Mutex
	// path is that of the file, empty if there is none.
	path   string
	failed bool
}

// Follow has the build become a record even if the daemon ends before it does. Told is what the build tells.
func (b *Build) Follow(told *feed.Feed) {
	if b == nil {
		return
	}
	n := &b.note
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer = time.AfterFunc(noteAfter, func() { b.writeNote(told) })
}

func (b *Build) writeNote(told *feed.Feed) {
	n := &b.note
	n.mu.Lock()
	if n.over.Load() {
		n.mu.Unlock()
		return
	}
	b.store.mu.Lock()
	rec := b.rec
	b.store.mu.Unlock()
	if err := n.write(rec, told); err != nil && !n.failed && !n.over.Load() {
		n.failed = true
		log.L.WithError(err).WithField("ref", rec.GetRef()).Warn("a build that runs cannot be noted: it has no record if the daemon is killed")
	}
	n.timer.Reset(noteEvery)
	n.mu.Unlock()
	if n.over.Load() {
		n.end() // which had no lock when it was called
	}
}

// write makes the note or says that the build still runs. The caller holds mu.
func (n *note) write(rec *Record, told *feed.Feed) error {
	tape, err := told.Save()
	if err != nil {
		return err
	}
	if n.path != "" {
		now := time.Now()
		return os.Chtimes(n.path, now, now)
	}
	data, err := proto.Marshal(rec)
	if err != nil {
		return err
	}
	path, part := tape+noteSuffix, tape+".part"
	if err := os.WriteFile(part, data, 0o600); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	n.path = path
	return nil
}

// end removes the note. It waits for no disk: who writes the note at this moment removes it.
func (n *note) end() {
	n.over.Store(true)
	if !n.mu.TryLock() {
		return
	}
	defer n.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
	}
	if n.path == "" {
		return
	}
	if err := os.Remove(n.path); err != nil {
		log.L.WithError(err).Error("the note of a build that has ended stays")
	}
	n.path = ""
}

// findInterrupted makes the builds that an earlier daemon noted known as such whose records are about to be
// made, by recoverInterrupted, and removes what is left of others.
func (s *Store) findInterrupted(ctx context.Context) {
	entries, err := os.ReadDir(s.TapeDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.G(ctx).WithError(err).Error("builds that were interrupted are not recorded")
	}
	needed := map[string]bool{}
	for _, e := range entries {
		path := filepath.Join(s.TapeDir(), e.Name())
		if !strings.HasSuffix(path, noteSuffix) {
			continue
		}
		if b := s.readNote(path); b != nil {
			s.active[b.rec.GetRef()] = b
			s.found = append(s.found, b)
			needed[path] = true
			needed[strings.TrimSuffix(path, noteSuffix)] = true
		}
	}
	for _, e := range entries {
		path := filepath.Join(s.TapeDir(), e.Name())
		if needed[path] {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			log.G(ctx).WithError(err).Warn("what is left of builds that were cut off stays")
		}
	}
}

// readNote returns the build that a note is of, nil if there is none or it has a record. That of an older build
// of the same name is none.
func (s *Store) readNote(path string) *Build {
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	rec := &Record{}
	if proto.Unmarshal(data, rec) != nil || rec.GetRef() == "" || len(rec.GetRef()) > maxRef || rec.GetCreatedAt() == nil {
		return nil
	}
	if s.active[rec.GetRef()] != nil {
		return nil
	}
	if known := s.get(rec.GetRef()); known != nil && !known.GetCreatedAt().AsTime().Before(rec.GetCreatedAt().AsTime()) {
		return nil
	}
	// The note was touched when the build was last known to run.
	rec.CompletedAt = timestamppb.New(st.ModTime())
	if st.ModTime().Before(rec.GetCreatedAt().AsTime()) {
		rec.CompletedAt = rec.GetCreatedAt()
	}
	rec.Error = &spb.Status{Code: int32(codes.Unavailable), Message: interrupted}
	return &Build{store: s, rec: rec, ended: true, note: note{path: path}}
}

// recoverInterrupted makes the records of the builds that findInterrupted found, until ctx ends: the next
// daemon finds those that are left.
func (s *Store) recoverInterrupted(ctx context.Context) {
	s.mu.Lock()
	found := s.found
	s.found = nil
	s.mu.Unlock()
	slices.SortFunc(found, func(a, b *Build) int { return byCreation(a.rec, b.rec) })
	for n, b := range found {
		if ctx.Err() != nil {
			found = found[:n]
			break
		}
		b.recover()
	}
	if len(found) == 0 {
		return
	}
	if err := s.table.flush(); err != nil {
		return // told in the log; they are found again if this daemon does not get to write them
	}
	for _, b := range found {
		b.note.end()
	}
}

// recover makes the record of a build that was noted.
func (b *Build) recover() {
	rec, _ := proto.Clone(b.rec).(*Record)
	tape := strings.TrimSuffix(b.note.path, noteSuffix)
	recording, counts, err := feed.Recover(tape, rec.GetCompletedAt().AsTime(), interrupted)
	if err != nil {
		log.L.WithError(err).WithField("ref", rec.GetRef()).Error("the output of a build that was interrupted is lost")
		recording = nil
	}
	setCounts(rec, counts)
	b.complete(rec, recording)
}
