package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend"
)

// Server serves the gateway API of one build. Its methods may be called concurrently.
type Server struct {
	gatewaypb.UnimplementedLLBBridgeServer
	bridge frontend.Bridge

	mu   sync.Mutex
	refs map[string]client.Reference // never nil ones
	// kept is the size of what the references were made from, in bytes.
	kept int
	// containers by the ids that the frontend chose; nil while one is being made.
	containers map[string]*heldContainer
	result     *client.Result
	err        error
	returned   chan struct{} // closed when result or err is set
}

// NewServer returns a Server over bridge.
func NewServer(bridge frontend.Bridge) *Server {
	return &Server{
		bridge:     bridge,
		refs:       map[string]client.Reference{},
		containers: map[string]*heldContainer{},
		returned:   make(chan struct{}),
	}
}

// Result waits until the frontend returns and gives what it returned, a result that is not nil or
// an error. It is the cause of ctx if that ends first.
func (s *Server) Result(ctx context.Context) (*client.Result, error) {
	select {
	case <-s.returned:
		return s.result, s.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Await waits until the frontend has returned and tells whether it has; not, if ctx ends first.
func (s *Server) Await(ctx context.Context) bool {
	select {
	case <-s.returned:
		return true
	case <-ctx.Done():
		return false
	}
}

// Returned gives what the frontend has returned; nothing if it has not.
func (s *Server) Returned() (res *client.Result, returned bool, err error) {
	select {
	case <-s.returned:
		return s.result, true, s.err
	default:
		return nil, false, nil
	}
}

// Ping tells what the daemon is able to do.
func (s *Server) Ping(context.Context, *gatewaypb.PingRequest) (*gatewaypb.PongResponse, error) {
	workers := s.bridge.BuildOpts().Workers
	pong := &gatewaypb.PongResponse{
		FrontendAPICaps: encodeCaps(gatewayCaps),
		LLBCaps:         encodeCaps(llbCaps),
		Workers:         make([]*workerspb.WorkerRecord, len(workers)),
	}
	for i, w := range workers {
		pong.Workers[i] = &workerspb.WorkerRecord{ID: w.ID, Labels: w.Labels}
		for _, p := range w.Platforms {
			pong.Workers[i].Platforms = append(pong.Workers[i].Platforms, pb.FromSpec(p))
		}
	}
	return pong, nil
}

// Solve asks the bridge for a result and gives its references ids.
func (s *Server) Solve(ctx context.Context, req *gatewaypb.SolveRequest) (*gatewaypb.SolveResponse, error) {
	decoded, err := decodeSolve(req)
	if err != nil {
		return nil, err
	}
	final, err := decodeExporterAttr(req)
	if err != nil {
		return nil, err
	}
	if err := s.reserve(proto.Size(req)); err != nil {
		return nil, err
	}
	res, err := s.bridge.Solve(ctx, decoded)
	if err != nil {
		s.unreserve(proto.Size(req))
		return nil, err
	}
	if res == nil {
		res = &client.Result{}
	}
	if req.GetFinal() {
		if err := s.setResult(withMeta(res, final), nil); err != nil {
			return nil, err
		}
	}
	if req.GetAllowResultReturn() {
		return &gatewaypb.SolveResponse{Result: s.encodeResult(res, req.GetAllowResultArrayRef())}, nil
	}
	ref, err := res.SingleRef()
	if err != nil {
		return nil, err
	}
	return &gatewaypb.SolveResponse{Ref: s.keep(ref)}, nil
}

// Evaluate computes the tree of a reference.
func (s *Server) Evaluate(ctx context.Context, req *gatewaypb.EvaluateRequest) (*gatewaypb.EvaluateResponse, error) {
	ref, err := s.ref(req.GetRef())
	if err != nil {
		return nil, err
	}
	if err := ref.Evaluate(ctx); err != nil {
		return nil, err
	}
	return &gatewaypb.EvaluateResponse{}, nil
}

// Inputs returns the definitions that were given to the frontend.
func (s *Server) Inputs(ctx context.Context, _ *gatewaypb.InputsRequest) (*gatewaypb.InputsResponse, error) {
	defs, err := s.bridge.Inputs(ctx)
	if err != nil {
		return nil, err
	}
	return &gatewaypb.InputsResponse{Definitions: defs}, nil
}

// Warn passes a warning on.
func (s *Server) Warn(ctx context.Context, req *gatewaypb.WarnRequest) (*gatewaypb.WarnResponse, error) {
	dgst, err := digest.Parse(req.GetDigest())
	if err != nil {
		return nil, invalid("warning of vertex %q: %v", req.GetDigest(), err)
	}
	if slices.Contains(req.GetRanges(), nil) {
		return nil, invalid("invalid source range")
	}
	err = s.bridge.Warn(ctx, dgst, string(req.GetShort()), client.WarnOpt{
		Level:  max(1, int(req.GetLevel())),
		Detail: req.GetDetail(),
		URL:    req.GetUrl(),
		Source: req.GetInfo(),
		Ranges: req.GetRanges(),
	})
	if err != nil {
		return nil, err
	}
	return &gatewaypb.WarnResponse{}, nil
}

// Return takes the frontend's result or, before it, its error. Only the first one counts.
func (s *Server) Return(_ context.Context, req *gatewaypb.ReturnRequest) (*gatewaypb.ReturnResponse, error) {
	if err := status.FromProto(req.GetError()); err != nil {
		if err := s.setResult(nil, err); err != nil {
			return nil, err
		}
		return &gatewaypb.ReturnResponse{}, nil
	}
	if req.GetResult() == nil {
		return nil, invalid("gateway return must be either result or err")
	}
	res, err := s.decodeResult(req.GetResult())
	if err != nil {
		return nil, err
	}
	if err := s.setResult(res, nil); err != nil {
		return nil, err
	}
	return &gatewaypb.ReturnResponse{}, nil
}

func (s *Server) setResult(res *client.Result, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.returned:
		return errors.New("gateway result is already set")
	default:
	}
	s.result, s.err = res, err
	close(s.returned)
	return nil
}

// Bounds of what a frontend is given: its references are kept until its build ends.
const (
	maxRefs = 100_000
	// maxKept bounds the definitions that they were made from, in bytes.
	maxKept = 1 << 30
)

// reserve counts a definition of size bytes that references will be made from.
func (s *Server) reserve(size int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.refs) >= maxRefs:
		return status.New(codes.ResourceExhausted, fmt.Sprintf("a build has at most %d references", maxRefs))
	case s.kept+size > maxKept:
		return status.New(codes.ResourceExhausted, fmt.Sprintf("the definitions of a build have at most %d bytes", maxKept))
	}
	s.kept += size
	return nil
}

// unreserve ends what reserve began where no reference was made.
func (s *Server) unreserve(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept -= size
}

// keep stores ref under a fresh id; that of a nil one is empty.
func (s *Server) keep(ref client.Reference) string {
	if ref == nil {
		return ""
	}
	id := newID()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refs[id] = ref
	return id
}

func (s *Server) lookup(id string) (client.Reference, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref, ok := s.refs[id]
	return ref, ok
}

// ref returns the reference to be read under an id.
func (s *Server) ref(id string) (client.Reference, error) {
	if id == "" {
		return nil, invalid("empty ref: %s", id)
	}
	ref, ok := s.lookup(id)
	if !ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		all := slices.Sorted(maps.Keys(s.refs))
		return nil, status.New(codes.NotFound, fmt.Sprintf("no such ref: %s, all %v", id, all))
	}
	return ref, nil
}

// returnedRef returns the reference that a frontend returns under an id; empty is the nil one.
func (s *Server) returnedRef(id string) (client.Reference, error) {
	if id == "" {
		return nil, nil
	}
	ref, ok := s.lookup(id)
	if !ok {
		return nil, status.New(codes.NotFound, "return reference "+id+" not found")
	}
	return ref, nil
}

func invalid(format string, args ...any) error {
	return status.New(codes.InvalidArgument, fmt.Sprintf(format, args...))
}
