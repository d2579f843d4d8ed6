package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// BuildIDKey is the metadata key of a call that names the build it belongs to.
const BuildIDKey = "buildkit-controlapi-buildid"

const (
	// lookupTimeout is how long a call may come before its build: clients send both at once.
	lookupTimeout = 3 * time.Second
	// maxOver is how many builds that are over are remembered, so that a call that comes after the
	// end of its build is not taken for one that comes before its beginning.
	maxOver = 256
)

var errBuildEnded = errors.New("the build has ended")

// Builds serves the gateway API on a daemon's socket: a call goes to the Server of the build that
// its metadata names. All methods may be called concurrently.
type Builds struct {
	gatewaypb.UnimplementedLLBBridgeServer

	mu     sync.Mutex
	builds map[string]*Build
	added  chan struct{} // closed and replaced when a build is added
	// over has the errors for calls of builds that are over, order their ids, the oldest first.
	over  map[string]error
	order []string
}

// NewBuilds returns a Builds without builds.
func NewBuilds() *Builds {
	return &Builds{builds: map[string]*Build{}, added: make(chan struct{}), over: map[string]error{}}
}

// Register announces a build whose frontend runs on the client's side. Calls that name it wait,
// from now on, until it runs. The caller closes the build when the request that asked for it has
// been answered. An id that is in use is an error.
func (b *Builds) Register(id string) (*Build, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.builds[id]; ok {
		return nil, status.New(codes.AlreadyExists, "job ID "+id+" exists")
	}
	build := &Build{id: id, owner: b, open: make(chan struct{}), late: &status.UnknownJobError{ID: id}}
	build.life, build.end = context.WithCancelCause(context.Background())
	b.builds[id] = build
	b.forget(id)
	close(b.added)
	b.added = make(chan struct{})
	return build, nil
}

func (b *Builds) remove(build *Build, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.builds[build.id] != build {
		return
	}
	delete(b.builds, build.id)
	if len(b.order) == maxOver {
		b.forget(b.order[0])
	}
	b.over[build.id] = err
	b.order = append(b.order, build.id)
}

// forget drops what is remembered of a build that is over.
func (b *Builds) forget(id string) {
	if _, ok := b.over[id]; ok {
		delete(b.over, id)
		b.order = slices.DeleteFunc(b.order, func(s string) bool { return s == id })
	}
}

// find returns the build that a call names, waiting a little for one that is still to come.
func (b *Builds) find(ctx context.Context) (*Build, error) {
	ids := metadata.ValueFromIncomingContext(ctx, BuildIDKey)
	if len(ids) == 0 || ids[0] == "" {
		return nil, invalid("no buildid found in context")
	}
	timeout := time.NewTimer(lookupTimeout)
	defer timeout.Stop()
	for {
		b.mu.Lock()
		build, over, added := b.builds[ids[0]], b.over[ids[0]], b.added
		b.mu.Unlock()
		switch {
		case build != nil:
			return build, nil
		case over != nil:
			return nil, over
		}
		select {
		case <-added:
		case <-timeout.C:
			return nil, &status.UnknownJobError{ID: ids[0]}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Build is a build whose frontend runs on the client's side.
type Build struct {
	id    string
	owner *Builds

	open   chan struct{} // closed when server is set
	server *Server

	//nolint:containedctx // the life of the build, which ends the contexts of its calls
	life context.Context
	end  context.CancelCauseFunc

	mu    sync.Mutex // orders calls.Add before calls.Wait
	ended bool
	// late is the error of calls that come now.
	late  error
	calls sync.WaitGroup
}

// Run is a client.BuildFunc: it serves the build's calls over c and returns what the frontend
// returns. No call uses c afterwards. It is called at most once.
func (b *Build) Run(ctx context.Context, c client.Client) (*client.Result, error) {
	b.mu.Lock()
	b.server = NewServer(c)
	b.mu.Unlock()
	close(b.open)
	defer b.finish()
	return b.server.Result(ctx)
}

// Close ends the build: its calls are cancelled, and those to come find no such build. If it never
// ran, they get the reason instead, if there is one: a client whose build is refused calls all the same,
// and may tell its user what came of that. It is idempotent.
func (b *Build) Close(reason error) {
	b.mu.Lock()
	if b.server == nil && !b.ended && reason != nil {
		b.late = reason
	}
	late := b.late
	b.mu.Unlock()
	b.owner.remove(b, late)
	b.finish()
}

// finish ends all calls and waits for them.
func (b *Build) finish() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.end(errBuildEnded)
	b.calls.Wait()
}

// begin waits until the build runs and returns its server, a context that ends with the build,
// and the function that ends the call.
func (b *Build) begin(ctx context.Context) (*Server, context.Context, func(), error) {
	select {
	case <-b.open:
	case <-b.life.Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		return nil, nil, nil, b.late
	case <-ctx.Done():
		return nil, nil, nil, context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return nil, nil, nil, b.late
	}
	b.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(b.life, func() { cancel(context.Cause(b.life)) })
	return b.server, ctx, func() {
		stop()
		cancel(nil)
		b.calls.Done()
	}, nil
}

// route calls method on the Server of the build that ctx names.
func route[Req, Resp any](ctx context.Context, b *Builds, req Req, method func(*Server, context.Context, Req) (*Resp, error)) (*Resp, error) {
	build, err := b.find(ctx)
	if err != nil {
		return nil, err
	}
	srv, ctx, done, err := build.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return method(srv, ctx, req)
}

// Ping implements the gateway API.
func (b *Builds) Ping(ctx context.Context, req *gatewaypb.PingRequest) (*gatewaypb.PongResponse, error) {
	return route(ctx, b, req, (*Server).Ping)
}

// Solve implements the gateway API.
func (b *Builds) Solve(ctx context.Context, req *gatewaypb.SolveRequest) (*gatewaypb.SolveResponse, error) {
	return route(ctx, b, req, (*Server).Solve)
}

// Evaluate implements the gateway API.
func (b *Builds) Evaluate(ctx context.Context, req *gatewaypb.EvaluateRequest) (*gatewaypb.EvaluateResponse, error) {
	return route(ctx, b, req, (*Server).Evaluate)
}

// Return implements the gateway API.
func (b *Builds) Return(ctx context.Context, req *gatewaypb.ReturnRequest) (*gatewaypb.ReturnResponse, error) {
	return route(ctx, b, req, (*Server).Return)
}

// Inputs implements the gateway API.
func (b *Builds) Inputs(ctx context.Context, req *gatewaypb.InputsRequest) (*gatewaypb.InputsResponse, error) {
	return route(ctx, b, req, (*Server).Inputs)
}

// Warn implements the gateway API.
func (b *Builds) Warn(ctx context.Context, req *gatewaypb.WarnRequest) (*gatewaypb.WarnResponse, error) {
	return route(ctx, b, req, (*Server).Warn)
}

// ReadFile implements the gateway API.
func (b *Builds) ReadFile(ctx context.Context, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	return route(ctx, b, req, (*Server).ReadFile)
}

// ReadDir implements the gateway API.
func (b *Builds) ReadDir(ctx context.Context, req *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	return route(ctx, b, req, (*Server).ReadDir)
}

// StatFile implements the gateway API.
func (b *Builds) StatFile(ctx context.Context, req *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	return route(ctx, b, req, (*Server).StatFile)
}

// ResolveImageConfig implements the gateway API.
func (b *Builds) ResolveImageConfig(ctx context.Context, req *gatewaypb.ResolveImageConfigRequest) (*gatewaypb.ResolveImageConfigResponse, error) {
	return route(ctx, b, req, (*Server).ResolveImageConfig)
}

// ResolveSourceMeta implements the gateway API.
func (b *Builds) ResolveSourceMeta(ctx context.Context, req *gatewaypb.ResolveSourceMetaRequest) (*gatewaypb.ResolveSourceMetaResponse, error) {
	return route(ctx, b, req, (*Server).ResolveSourceMeta)
}

// ReadFileContainer implements the gateway API.
func (b *Builds) ReadFileContainer(ctx context.Context, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	return route(ctx, b, req, (*Server).ReadFileContainer)
}

// ReadDirContainer implements the gateway API.
func (b *Builds) ReadDirContainer(ctx context.Context, req *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	return route(ctx, b, req, (*Server).ReadDirContainer)
}

// StatFileContainer implements the gateway API.
func (b *Builds) StatFileContainer(ctx context.Context, req *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	return route(ctx, b, req, (*Server).StatFileContainer)
}

// NewContainer implements the gateway API.
func (b *Builds) NewContainer(ctx context.Context, req *gatewaypb.NewContainerRequest) (*gatewaypb.NewContainerResponse, error) {
	return route(ctx, b, req, (*Server).NewContainer)
}

// ReleaseContainer implements the gateway API.
func (b *Builds) ReleaseContainer(ctx context.Context, req *gatewaypb.ReleaseContainerRequest) (*gatewaypb.ReleaseContainerResponse, error) {
	return route(ctx, b, req, (*Server).ReleaseContainer)
}

// ExecProcess implements the gateway API.
func (b *Builds) ExecProcess(stream gatewaypb.LLBBridge_ExecProcessServer) error {
	build, err := b.find(stream.Context())
	if err != nil {
		return err
	}
	srv, ctx, done, err := build.begin(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	return srv.exec(ctx, stream)
}
