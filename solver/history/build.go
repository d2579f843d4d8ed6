package history

import (
	"crypto/rand"
	"os"

	"github.com/containerd/log"
	"go.opentelemetry.io/otel/trace"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/api/redact"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/feed"
)

// errorType is the media type of the details of an error, misspelt for good.
const errorType = "application/vnd.googeapis.google.rpc.status+proto"

const (
	// maxRef bounds the names of builds that are recorded.
	maxRef = 1 << 10
	// maxShort is the size of the longest blob that is kept beside its record.
	maxShort = 256 << 10
)

// Build is a build that is to become a record. Its methods may be called concurrently, but for
// End, after which only Outcome.Later may. A nil Build does nothing.
type Build struct {
	store *Store
	// rec is what is shown of the active build; it is replaced, not changed. Guarded by the store.
	rec      *Record
	ended    bool
	attached []blob
	// trace is nil for a build that was interrupted.
	trace *spans
	note  note
}

// Begin tells of a build that starts. Ref, Frontend, FrontendAttrs and Exporters of rec are taken
// as they are, but for credentials. It returns nil if the build cannot be recorded.
func (s *Store) Begin(rec *Record) *Build {
	ref := rec.GetRef()
	if s.table == nil || ref == "" || len(ref) > maxRef {
		return nil
	}
	rec = redacted(rec)
	bounded(rec)
	rec.CreatedAt = s.timestamp()
	b := &Build{store: s, rec: rec, trace: &spans{}}
	// crypto/rand.Read never fails.
	_, _ = rand.Read(b.trace.id[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[ref] = b
	s.watchTrace(b.trace)
	s.publish(controlpb.BuildHistoryEventType_STARTED, ref)
	return b
}

// Join makes the build part of the trace of its client. It must be called before TraceID is.
func (b *Build) Join(parent trace.SpanContext) {
	if b == nil || !parent.IsValid() {
		return
	}
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	b.store.forgetTrace(b.trace)
	b.trace.id, b.trace.parent = parent.TraceID(), parent
	b.store.watchTrace(b.trace)
}

// TraceID is that of the spans that belong to the build.
func (b *Build) TraceID() trace.TraceID { return b.trace.id }

// Attach has content kept with the record and returns its descriptor. Data must not be changed
// afterwards.
func (b *Build) Attach(mediaType string, data []byte, annotations map[string]string) (*controlpb.Descriptor, error) {
	if b == nil {
		return nil, errOff
	}
	kept, err := b.store.table.keep(data)
	if err != nil {
		return nil, err
	}
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	b.attached = append(b.attached, kept)
	return &controlpb.Descriptor{
		MediaType: mediaType, Digest: kept.digest.String(), Size: int64(len(data)), Annotations: annotations,
	}, nil
}

// Outcome is what became of a build.
type Outcome struct {
	// Err is nil if it succeeded.
	Err error
	// Frontend is the one that was asked first.
	Frontend string
	// Response is what the exporters and the frontend answered.
	Response map[string]string
	// Result is that of a build for one platform or for none, Results those by platform.
	Result  *controlpb.BuildResultInfo
	Results map[string]*controlpb.BuildResultInfo
	// Feed is what the build told. It is closed, and released when all of it is kept.
	Feed *feed.Feed
	// Later, if it is set, adds what takes time. It is called once, after End has returned.
	Later func(*Outcome)
}

// End makes the record of the build, after those of the builds that ended before. It returns at once
// unless many builds end faster than records are made. Who asks for the record waits for it; Close and
// Flush do too.
func (b *Build) End(o Outcome) {
	if b == nil {
		o.Feed.Release()
		return
	}
	s := b.store
	b.note.end()
	s.mu.Lock()
	b.ended = true
	rec, _ := proto.Clone(b.rec).(*Record)
	s.mu.Unlock()
	rec.CompletedAt = s.timestamp()
	s.later(func() { b.end(rec, o) })
}

// end makes the record. If the output of the build is so long that it is in a file, that takes the
// time to read it, and nobody waits for it but who asks for this record.
func (b *Build) end(rec *Record, o Outcome) {
	if o.Later != nil {
		o.Later(&o)
	}
	b.fill(rec, o)
	bounded(rec)
	b.trace.own = b.trace.ownSpans(rec, o.Feed)
	recording, err := o.Feed.Record()
	if err != nil {
		log.L.WithError(err).WithField("ref", rec.GetRef()).Error("the output of a build is not recorded")
	}
	complete := func() {
		b.complete(rec, recording)
		o.Feed.Release()
	}
	if err != nil || recording.Path == "" {
		complete()
		return
	}
	b.store.ending.Go(complete)
}

func (b *Build) fill(rec *Record, o Outcome) {
	if rec.Frontend == "" {
		rec.Frontend = giturl.Redact(o.Frontend)
	}
	rec.ExporterResponse = redact.Map(textMap(o.Response))
	rec.Result, rec.Results = o.Result, o.Results
	setCounts(rec, o.Feed.Counts())
	if o.Err == nil {
		return
	}
	full := status.Redacted(status.Proto(o.Err))
	rec.Error = &spb.Status{Code: full.GetCode(), Message: full.GetMessage()}
	if len(full.GetDetails()) == 0 {
		return
	}
	data, err := proto.Marshal(full)
	if err == nil {
		rec.ExternalError, err = b.Attach(errorType, data, nil)
	}
	if err != nil {
		log.L.WithError(err).WithField("ref", rec.GetRef()).Error("the details of an error are not recorded")
	}
}

func setCounts(rec *Record, counts feed.Counts) {
	rec.NumTotalSteps = int32(counts.Total)
	rec.NumCachedSteps = int32(counts.Cached)
	rec.NumCompletedSteps = int32(counts.Completed)
	rec.NumWarnings = int32(counts.Warnings)
}

// complete stores the record with the recording, if there is one.
func (b *Build) complete(rec *Record, recording *feed.Recording) {
	s := b.store
	var kept blob
	var err error
	if recording != nil {
		if recording.Path == "" {
			kept, err = s.table.keep(recording.Data)
		} else {
			kept, err = s.table.adopt(recording.Path)
		}
		if err != nil {
			log.L.WithError(err).WithField("ref", rec.GetRef()).Error("the output of a build is not recorded")
			_ = os.Remove(recording.Path) // there may be none
		} else {
			rec.Logs = &controlpb.Descriptor{MediaType: feed.MediaType, Digest: kept.digest.String(), Size: recording.Size}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Logs != nil {
		b.attached = append(b.attached, kept)
	}
	if _, hidden := s.doomed[rec.GetRef()]; hidden || s.get(rec.GetRef()) != nil {
		// A client has used its name again.
		s.giveUp(rec.GetRef())
		delete(s.doomed, rec.GetRef())
		s.table.delete(rec.GetRef())
	}
	if err := s.table.put(rec, b.attached); err != nil {
		log.L.WithError(err).WithField("ref", rec.GetRef()).Error("a build is not recorded")
	}
	if b.trace != nil {
		s.finishLater(rec.GetRef(), b.trace)
	}
	if s.active[rec.GetRef()] == b {
		delete(s.active, rec.GetRef())
	}
	s.publish(controlpb.BuildHistoryEventType_COMPLETE, rec.GetRef())
	close(s.changed)
	s.changed = make(chan struct{})
}
