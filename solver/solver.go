// Package solver is the conductor: it takes a request for a build, runs it as a Job, and hands
// back what was asked for.
//
// A Job admits the request (sessions, entitlements), runs its frontend through a Bridge or its
// definition directly, exports the result and releases everything in reverse order. The graph of
// what is to be done is package graph, who identifies a vertex is package key, who decides what
// runs is package schedule, who runs it is package op. The solver is used by the daemon's control
// service; nothing below it knows it.
package solver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/log"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/compat"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/frontend"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
	"github.com/openbuildkit/buildkit/solver/key"
	"github.com/openbuildkit/buildkit/solver/op"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
)

// Config is what a Solver works with. Everything is required but the two lists.
type Config struct {
	Worker    *worker.Worker
	Sessions  *session.Manager
	Keys      *key.Store
	Frontends frontend.Registry
	Exporters exporter.Registry
	// Entitlements are those that this daemon grants at all.
	Entitlements []string
	LogLimits    op.LogLimits
	History      *history.Store
	// ProvenanceEnv is what the administrator tells of this daemon, see provenance.CheckEnv.
	ProvenanceEnv map[string]any
	// DockerfileVersion is that of the language of the frontend dockerfile.v0; empty if there is none.
	DockerfileVersion string
	// Version is that of the daemon.
	Version string
}

// Solver runs builds. Methods may be called concurrently.
type Solver struct {
	cfg       Config
	ops       *op.Factory
	scheduler *schedule.Scheduler

	mu       sync.Mutex
	jobs     map[string]*job
	draining bool
	// changed is closed and replaced when a job comes or goes.
	changed chan struct{}
}

// New makes a Solver. It starts nothing.
func New(cfg Config) *Solver {
	ops := op.NewFactory(cfg.Worker, cfg.Sessions, cfg.LogLimits)
	return &Solver{
		cfg:       cfg,
		ops:       ops,
		scheduler: schedule.New(cfg.Keys, ops.New, ops.Load),
		jobs:      map[string]*job{},
		changed:   make(chan struct{}),
	}
}

// Run does what is to be done in the background until ctx ends.
func (s *Solver) Run(ctx context.Context) error {
	s.cfg.Keys.Run(ctx)
	return nil
}

// flush has what builds made outlive a crash that comes right after they ended. Records come first:
// a key whose result is gone is worth less than a result without a key.
func (s *Solver) flush(ctx context.Context) {
	if !s.cfg.Keys.Pending() {
		return
	}
	if err := s.cfg.Worker.Cache.Flush(); err != nil {
		log.G(ctx).WithError(err).Warn("what was built is not on the disk yet")
	}
	s.cfg.Keys.Flush()
}

// Busy returns how many builds are running.
func (s *Solver) Busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, j := range s.jobs {
		if !j.ended {
			n++
		}
	}
	return n
}

// errShutdown is what builds end with that outlast the daemon's patience.
var errShutdown = status.New(codes.Unavailable, "daemon is shutting down")

// Drain refuses new builds with Unavailable and waits for the running ones. When ctx ends those
// that are left are cancelled, and waited for.
func (s *Solver) Drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	cancelled := false
	for {
		s.mu.Lock()
		busy, changed := 0, s.changed
		for _, j := range s.jobs {
			if j.ended {
				continue
			}
			busy++
			if cancelled {
				j.cancel(errShutdown)
			}
		}
		s.mu.Unlock()
		if busy == 0 {
			break
		}
		if cancelled {
			<-changed
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			cancelled = true
		}
	}
	s.scheduler.Wait()
}

// statusWait is how long a listener may be ahead of its build.
const statusWait = 6 * time.Second

// feedGrace is how long the feed of a build that is not recorded can be read after its end: a listener
// asks in a call of its own and may come late.
const feedGrace = 15 * time.Second

// Status calls emit with everything that a build tells, from its beginning to its end. A build that
// has ended is replayed from its record. What emit gets is an encoded StatusResponse, valid until
// emit returns.
func (s *Solver) Status(ctx context.Context, ref string, emit func(status []byte) error) error {
	j, err := s.find(ctx, ref, statusWait)
	if err != nil {
		return err
	}
	if j != nil {
		if err := j.feed.Watch(ctx, emit); !errors.Is(err, feed.ErrReleased) {
			return err
		}
	}
	var missing *history.NotFoundError
	if err := s.cfg.History.Replay(ctx, ref, emit); !errors.As(err, &missing) {
		return err
	}
	return &status.UnknownJobError{ID: ref}
}

// find returns the job of a ref, waiting for it to appear; nil for one that has become a record.
func (s *Solver) find(ctx context.Context, ref string, patience time.Duration) (*job, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		j, changed := s.jobs[ref], s.changed
		s.mu.Unlock()
		if j != nil {
			return j, nil
		}
		if s.cfg.History.Has(ref) {
			return nil, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return nil, &status.UnknownJobError{ID: ref}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// register makes the job of a request known.
func (s *Solver) register(j *job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return errShutdown
	}
	if old := s.jobs[j.req.Ref]; old != nil && !old.ended {
		return status.New(codes.AlreadyExists, fmt.Sprintf("job ID %s exists", j.req.Ref))
	}
	s.jobs[j.req.Ref] = j
	s.notify()
	return nil
}

func (s *Solver) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// retire forgets a job that has ended, or does so a little later if there is no record to look into.
func (s *Solver) retire(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.ended = true
	s.notify()
	if j.recorded != nil {
		s.forget(j)
		return
	}
	time.AfterFunc(feedGrace, func() {
		s.mu.Lock()
		s.forget(j)
		s.mu.Unlock()
		j.feed.Release()
	})
}

// forget is called with mu held.
func (s *Solver) forget(j *job) {
	if s.jobs[j.req.Ref] == j {
		delete(s.jobs, j.req.Ref)
	}
}

// Solve runs a build to its end.
func (s *Solver) Solve(ctx context.Context, req Request) (*Response, error) {
	if req.Ref == "" {
		return nil, status.New(codes.InvalidArgument, "build ref must be specified")
	}
	if req.Definition != nil && req.Frontend != "" {
		return nil, status.New(codes.InvalidArgument, errBothGiven.Error())
	}
	j, err := s.newJob(ctx, req)
	if err != nil {
		return nil, err
	}
	return j.run()
}

var errBothGiven = errors.New("cannot solve with both Definition and Frontend specified")

// Request asks for one build.
type Request struct {
	// Ref names the build, chosen by the client; it is also the build id of its gateway calls.
	Ref string
	// Session is the id of the client's session.
	Session string
	// Of Definition and Frontend at most one is set. With neither, Build produces the result; without
	// Build either, it is the empty tree.
	Definition     *pb.Definition
	Frontend       string
	FrontendOpt    map[string]string
	FrontendInputs map[string]*pb.Definition
	// Build is a frontend that runs elsewhere, on the side of the client.
	Build gateway.BuildFunc

	Exporters []Exporter
	// SessionExporter lets the session add exporters when the result is there.
	SessionExporter bool
	CacheExports    []RemoteCache
	CacheImports    []RemoteCache
	// Entitlements are the grants of the client, as it spelled them.
	Entitlements []string
	// SourcePolicy holds for all sources of the build; nil allows them. PolicySession is the id of a
	// session that is asked about each that it allows; empty asks nobody.
	SourcePolicy  *sourcepolicypb.Policy
	PolicySession string
	// Internal builds are not recorded.
	Internal bool
	// Compatibility is the version of behaviour asked for; 0 is the current one.
	Compatibility compat.Version
	// Trace is the span of the client that the build is part of, if it is valid.
	Trace trace.SpanContext
}

// Exporter names an exporter and its attributes. Its id is its position in the request.
type Exporter struct {
	Type  string
	Attrs map[string]string
}

// RemoteCache names a remote cache and its attributes.
type RemoteCache struct {
	Type  string
	Attrs map[string]string
}

// Response is what a finished build tells its client.
type Response struct {
	Exporter map[string]string
}
