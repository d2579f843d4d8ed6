// Package history keeps the records of builds: who asked for what, how it went, and what was said
// on the way.
//
// A build is begun with Begin and ended with Build.End; in between it is active. What is kept of it
// afterwards is a BuildHistoryRecord and blobs: the recording of its progress with all output, its
// trace, the details of its error, and whatever else was attached to it. Records are made after
// the client has its answer, in the order in which builds end; who asks for them waits for that. They are
// written to a bbolt file a moment after the build, many in one transaction, so a build never waits
// for the disk; a crash in that moment loses the newest records. Short blobs are in the same
// file, long ones are files beside it, each known by its digest and kept as long as a record
// holds it.
//
// A build that takes long is noted on disk while it runs. If the daemon is killed, the next one makes a
// record of what is known of it.
//
// Records are listed and watched with Listen, and changed with Pin, Delete and Finalize. They go
// when there are more than so many, and they are older than so long; pinned ones stay.
//
// Nothing here fails a build or a daemon: what cannot be read is not there, what cannot be written
// is lost, and a file that is damaged is set aside. The package knows no jobs. Package solver tells
// it of builds, the control API asks it.
package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/log"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// Default bounds of what is kept.
const (
	DefaultMaxAge     = 48 * time.Hour
	DefaultMaxEntries = 50
)

// sweepInterval is the time between two looks for records that are to go.
const sweepInterval = 2 * time.Minute

// Config is how a history is opened.
type Config struct {
	// Dir is the folder of the history and of nothing else.
	Dir string
	// A record goes if it has ended longer than MaxAge ago and MaxEntries others have ended since.
	MaxAge     time.Duration
	MaxEntries int
	// TraceGrace is how long after a build its trace is stored; 0 is 3 seconds.
	TraceGrace time.Duration
	// Spans, if set, is given the spans of each build that has ended, of the daemon alone.
	Spans func(tracetest.SpanStubs)
	// MakeRoom, if set, is called before records are removed, which takes some space too. On a disk that is full
	// it gives up what is kept for that and returns what takes it again, otherwise nil.
	MakeRoom func() (restore func())
	// Now is time.Now if nil.
	Now func() time.Time
}

// Record is a build as the control API shows it. Records are shared and must not be changed.
type Record = controlpb.BuildHistoryRecord

// Store is the history of a daemon. Its methods may be called concurrently.
type Store struct {
	cfg   Config
	table *table

	mu        sync.Mutex
	active    map[string]*Build
	listeners map[*listener]struct{}
	// watched counts the listeners of a single ref. Doomed are the refs that were deleted while
	// there were some, whose blobs go with the last of them.
	watched map[string]int
	doomed  map[string]struct{}
	// traces are those of builds that are active or unfinished, which wait for spans.
	traces     map[trace.TraceID][]*spans
	unfinished map[string]*spans
	// found are the builds that an earlier daemon did not live to end, until there are records of them.
	found []*Build
	// changed is closed and replaced when an active build becomes a record.
	changed chan struct{}
	// endings are what is to be done after builds, in order. AtEndings tells that somebody does it;
	// ending waits for that, and for what takes long.
	endings   []func()
	atEndings bool
	ending    sync.WaitGroup
	closed    bool
}

// Open opens the history in cfg.Dir, or makes one. Records that have lost their blobs are removed.
// Without a history that works there is one all the same, which forgets: it is told in the log.
func Open(ctx context.Context, cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.TraceGrace == 0 {
		cfg.TraceGrace = defaultTraceGrace
	}
	s := &Store{
		cfg:       cfg,
		active:    map[string]*Build{},
		listeners: map[*listener]struct{}{},
		watched:   map[string]int{},
		doomed:    map[string]struct{}{},

		traces:     map[trace.TraceID][]*spans{},
		unfinished: map[string]*spans{},
		changed:    make(chan struct{}),
	}
	var err error
	if s.table, err = openTable(cfg.Dir); err != nil {
		log.G(ctx).WithError(err).Error("the history of builds cannot be used, builds are not recorded")
		s.table = nil
	}
	if s.table != nil {
		s.findInterrupted(ctx)
	} else if err := os.RemoveAll(s.TapeDir()); err != nil {
		log.G(ctx).WithError(err).Warn("what is left of builds that were cut off stays")
	}
	return s
}

// TapeDir is the folder for the recordings of builds that run, see feed.New.
func (s *Store) TapeDir() string { return filepath.Join(s.cfg.Dir, "running") }

// Run makes the records of builds that an earlier daemon did not live to end, which those who ask for them
// wait for, and removes what is to go, now and then, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	s.recoverInterrupted(ctx)
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		s.Sweep(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Close writes what is left to be written. No build may be active. It may be called more than once.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.ending.Wait()
	if s.table == nil {
		return nil
	}
	s.mu.Lock()
	unfinished := maps.Clone(s.unfinished)
	s.mu.Unlock()
	for ref, t := range unfinished {
		s.finish(ref, t)
		<-t.done
	}
	return s.table.close()
}

// Content returns the blobs of all records, for reading.
func (s *Store) Content() content.InfoReaderProvider { return blobs{s} }

// NotFoundError says that there is no record of a build.
type NotFoundError struct {
	Ref string
	// Running tells that there will be one.
	Running bool
}

// Error names the build.
func (e *NotFoundError) Error() string {
	if e.Running {
		return fmt.Sprintf("failed to retrieve ref %s: the build is still running", e.Ref)
	}
	return fmt.Sprintf("failed to retrieve ref %s: file does not exist", e.Ref)
}

// Code is that of what is not there.
func (e *NotFoundError) Code() codes.Code { return codes.NotFound }

// noRecord returns the error that there is no record. The caller holds mu.
func (s *Store) noRecord(ref string) error {
	return &NotFoundError{Ref: ref, Running: s.active[ref] != nil}
}

// DeletedError says that the record of a build is being deleted.
type DeletedError struct{ Ref string }

// Error names the build.
func (e *DeletedError) Error() string { return fmt.Sprintf("ref %s is deleted", e.Ref) }

// Code is that of what is not there.
func (e *DeletedError) Code() codes.Code { return codes.NotFound }

// get returns the record of a build that has ended, nil if there is none.
func (s *Store) get(ref string) *Record {
	if s.table == nil {
		return nil
	}
	rec, err := s.table.get(ref)
	if err != nil {
		log.L.WithError(err).WithField("ref", ref).Error("the record of a build cannot be read")
	}
	return rec
}

// Pin has a record stay, or not.
func (s *Store) Pin(ctx context.Context, ref string, pinned bool) error {
	if err := s.await(ctx, ref); err != nil {
		return err
	}
	return s.change(ref, func(rec *Record) { rec.Pinned = pinned })
}

// change stores a new generation of a record, which has blobs from now on that are new.
func (s *Store) change(ref string, fn func(*Record), attached ...blob) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.get(ref)
	if old == nil {
		s.table.giveBack(attached)
		return s.noRecord(ref)
	}
	rec, _ := proto.Clone(old).(*Record)
	rec.Generation++
	fn(rec)
	if err := s.table.put(rec, attached); err != nil {
		return err
	}
	s.publish(controlpb.BuildHistoryEventType_COMPLETE, ref)
	return nil
}

// await returns when the build is not active any more or, if it has not even ended, at once.
func (s *Store) await(ctx context.Context, ref string) error {
	s.mu.Lock()
	first := s.active[ref]
	s.mu.Unlock()
	for {
		s.mu.Lock()
		b, changed := s.active[ref], s.changed
		s.mu.Unlock()
		if b == nil || b != first || !b.ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitAll is await for all builds.
func (s *Store) awaitAll(ctx context.Context) error {
	s.mu.Lock()
	active := slices.Collect(maps.Keys(s.active))
	s.mu.Unlock()
	for _, ref := range active {
		if err := s.await(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes a record. Its blobs stay as long as somebody listens to it.
func (s *Store) Delete(ctx context.Context, ref string) error {
	if err := s.await(ctx, ref); err != nil {
		return err
	}
	defer s.makeRoom()()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.get(ref) == nil {
		return s.noRecord(ref)
	}
	s.drop(ref)
	return nil
}

// makeRoom has records removed on a full disk. What it returns is called afterwards.
func (s *Store) makeRoom() (done func()) {
	if s.cfg.MakeRoom == nil || s.table == nil {
		return func() {}
	}
	restore := s.cfg.MakeRoom()
	if restore == nil {
		return func() {}
	}
	return func() {
		// What it fails with is told in the log, and it is tried again.
		_ = s.table.flush()
		restore()
	}
}

// drop deletes a record that is there. The caller holds mu.
func (s *Store) drop(ref string) {
	s.giveUp(ref)
	if s.watched[ref] > 0 {
		s.doomed[ref] = struct{}{}
		s.table.hide(ref)
	} else {
		s.table.delete(ref)
	}
	s.publish(controlpb.BuildHistoryEventType_DELETED, ref)
}

// Sweep removes the records that are to go.
func (s *Store) Sweep(ctx context.Context) {
	if s.table == nil || s.table.len() <= s.cfg.MaxEntries {
		return
	}
	var all []entry
	err := s.table.each(func(rec *Record) {
		all = append(all, entry{ref: rec.GetRef(), ended: rec.GetCompletedAt().AsTime(), pinned: rec.GetPinned()})
	})
	if err != nil {
		log.G(ctx).WithError(err).Error("the history of builds cannot be read")
		return
	}
	defer s.makeRoom()()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range plan(all, s.cfg.MaxEntries, s.cfg.Now().Add(-s.cfg.MaxAge)) {
		if rec := s.get(ref); rec != nil && !rec.GetPinned() {
			s.drop(ref)
		}
	}
}

// timestamp is the time now.
func (s *Store) timestamp() *timestamppb.Timestamp { return timestamppb.New(s.cfg.Now()) }

// errOff is what attaching ends with if there is no history.
var errOff = errors.New("builds are not recorded")

// Flush makes the records of the builds that have ended and writes at once what would be written in
// a moment.
func (s *Store) Flush(ctx context.Context) error {
	if s.table == nil {
		return nil
	}
	if err := s.awaitAll(ctx); err != nil {
		return err
	}
	return s.table.flush()
}
