// Package control serves the control API: it decodes requests, calls what does the work, and
// encodes what that answers. It holds no state and takes no decision about builds.
//
// The daemon's wiring makes one Controller and registers it, and the gateway API beside it, with
// the gRPC server. Errors leave as plain Go errors; the server's interceptors map them. Fields of
// requests that ask for something that is not implemented and must not be ignored are refused as
// Unimplemented.
package control

import (
	"context"
	"fmt"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/gc"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver"
)

// Solver runs builds; *solver.Solver is one.
type Solver interface {
	Solve(ctx context.Context, req solver.Request) (*solver.Response, error)
	// Status calls emit with what a build tells, from its beginning, until it ends: encoded
	// StatusResponses, each valid until emit returns.
	Status(ctx context.Context, ref string, emit func(status []byte) error) error
}

// Sessions serves the sessions of clients; *session.Manager is one.
type Sessions interface {
	HandleStream(stream controlpb.Control_SessionServer) error
}

// Storage is what the daemon keeps on disk; *cache.Manager is one.
type Storage interface {
	// DiskUsage returns the records that match any of the filters, all if there are none.
	DiskUsage(ctx context.Context, filters []string) ([]cache.Usage, error)
	// Prune deletes what is not used as the policies say, one after the other, calls removed for
	// each record, and returns when the space is free.
	Prune(ctx context.Context, policies []gc.Policy, removed func(cache.Usage)) error
}

// Config is what a Controller needs. Nothing may be nil.
type Config struct {
	Solver   Solver
	History  History
	Builds   *gateway.Builds
	Sessions Sessions
	Storage  Storage
	// Workers returns those there are, the default one first. They are not changed.
	Workers func() []*workerspb.WorkerRecord
	// Traces takes the spans of clients.
	Traces  coltracepb.TraceServiceServer
	Version *workerspb.BuildkitVersion
}

// Controller is the control API. Its methods may be called concurrently.
type Controller struct {
	controlpb.UnimplementedControlServer
	cfg     Config
	content contentapi.ContentServer
}

// New returns a Controller.
func New(cfg Config) *Controller {
	return &Controller{cfg: cfg, content: newContentServer(cfg.History.Content())}
}

// timestampKey is the header by which a client learns how far its clock is from the daemon's.
const timestampKey = "buildkit-current-timestamp"

// Solve runs a build and answers when it has ended.
func (c *Controller) Solve(ctx context.Context, req *controlpb.SolveRequest) (_ *controlpb.SolveResponse, err error) {
	var build *gateway.Build
	if req.GetDefinition() == nil && req.GetFrontend() == "" && req.GetRef() != "" {
		// The client drives the build: its calls name it from now on, however long it takes to start. A
		// definition of nothing is not meant so: it stands for the empty tree.
		if build, err = c.cfg.Builds.Register(req.GetRef()); err != nil {
			return nil, err
		}
		defer func() { build.Close(err) }()
	}
	r, refusal := decodeSolve(req)
	switch {
	case refusal != nil:
		// It is a build all the same, one that fails: those who listen to it do not wait for it.
		refused := func(context.Context, client.Client) (*client.Result, error) { return nil, refusal }
		r = solver.Request{Ref: req.GetRef(), Internal: req.GetInternal(), Build: refused}
	case build != nil:
		r.Build = build.Run
	}
	r.Trace = traceOf(ctx)
	resp, err := c.cfg.Solver.Solve(ctx, r)
	if err != nil {
		return nil, err
	}
	return &controlpb.SolveResponse{ExporterResponse: resp.Exporter}, nil
}

// traceOf returns the span of a client that a call is part of, one that is not valid if there is none.
func traceOf(ctx context.Context) trace.SpanContext {
	md, _ := metadata.FromIncomingContext(ctx)
	carrier := propagation.MapCarrier{}
	for _, key := range (propagation.TraceContext{}).Fields() {
		if values := md.Get(key); len(values) > 0 {
			carrier.Set(key, values[0])
		}
	}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// Status tells what a build is doing, from its beginning, until it ends.
func (c *Controller) Status(req *controlpb.StatusRequest, stream controlpb.Control_StatusServer) error {
	if err := sendTimestamp(stream); err != nil {
		return err
	}
	return c.cfg.Solver.Status(stream.Context(), req.GetRef(), func(status []byte) error {
		f := session.NewFrame(len(status))
		f.Data = append(f.Data, status...)
		return stream.SendMsg(f)
	})
}

func sendTimestamp(stream grpc.ServerStream) error {
	return stream.SendHeader(metadata.Pairs(timestampKey, time.Now().Format(time.RFC3339Nano)))
}

// Session lets the daemon call the client until either ends it.
func (c *Controller) Session(stream controlpb.Control_SessionServer) error {
	return c.cfg.Sessions.HandleStream(stream)
}

// Info tells what the daemon is.
func (c *Controller) Info(context.Context, *controlpb.InfoRequest) (*controlpb.InfoResponse, error) {
	return &controlpb.InfoResponse{BuildkitVersion: c.cfg.Version}, nil
}

func invalid(format string, args ...any) error {
	return status.New(codes.InvalidArgument, fmt.Sprintf(format, args...))
}

func unimplemented(what string) error {
	return status.New(codes.Unimplemented, what+" are not supported")
}
