package gateway_test

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// fakeBridge answers from its fields and keeps what it was asked.
type fakeBridge struct {
	client.Client
	solve func(context.Context, client.SolveRequest) (*client.Result, error)
	meta  *client.SourceMeta
	// container, which may be nil, makes containers.
	container func(client.NewContainerRequest) (client.Container, error)

	mu       sync.Mutex
	resolved *pb.SourceOp
	opt      client.ResolveOpt
	warned   []client.WarnOpt
}

func (b *fakeBridge) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	return b.solve(ctx, req)
}

func (b *fakeBridge) ResolveSourceMeta(_ context.Context, op *pb.SourceOp, opt client.ResolveOpt) (*client.SourceMeta, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resolved, b.opt = op, opt
	meta := *b.meta
	if meta.Op == nil {
		meta.Op = op
	}
	return &meta, nil
}

func (b *fakeBridge) NewContainer(_ context.Context, req client.NewContainerRequest) (client.Container, error) {
	return b.container(req)
}

func (b *fakeBridge) BuildOpts() client.BuildOpts {
	return client.BuildOpts{Workers: []client.WorkerInfo{{
		ID:        "w",
		Labels:    map[string]string{"a": "b"},
		Platforms: []ocispec.Platform{{OS: "linux", Architecture: "arm", Variant: "v7"}},
	}}}
}

func (b *fakeBridge) Inputs(context.Context) (map[string]*pb.Definition, error) {
	return map[string]*pb.Definition{"in": {Def: [][]byte{{1}}}}, nil
}

func (b *fakeBridge) Warn(_ context.Context, _ digest.Digest, _ string, opt client.WarnOpt) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.warned = append(b.warned, opt)
	return nil
}

// fakeRef is a tree with one file.
type fakeRef struct {
	file      string
	evaluated func()
}

func (r *fakeRef) Definition() *pb.Definition { return &pb.Definition{Def: [][]byte{[]byte(r.file)}} }

func (r *fakeRef) Evaluate(context.Context) error {
	if r.evaluated != nil {
		r.evaluated()
	}
	return nil
}

func (r *fakeRef) ReadFile(_ context.Context, req client.ReadRequest) ([]byte, error) {
	if req.Filename != "/f" {
		return nil, &os.PathError{Op: "open", Path: req.Filename, Err: os.ErrNotExist}
	}
	from := min(req.Range.Offset, int64(len(r.file)))
	to := min(from+req.Range.Length, int64(len(r.file)))
	return []byte(r.file[from:to]), nil
}

func (r *fakeRef) ReadDir(_ context.Context, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	return []*fstypes.Stat{{Path: req.Path + "," + req.IncludePattern}}, nil
}

func (r *fakeRef) StatFile(_ context.Context, path string) (*fstypes.Stat, error) {
	return &fstypes.Stat{Path: path}, nil
}

// serve serves srv on a connection with the interceptors of the daemon.
func serve(t *testing.T, srv gatewaypb.LLBBridgeServer) gatewaypb.LLBBridgeClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	const limit = 16 << 20
	s := grpc.NewServer(grpc.UnaryInterceptor(status.UnaryServer), grpc.StreamInterceptor(status.StreamServer),
		grpc.MaxRecvMsgSize(limit), grpc.MaxSendMsgSize(limit))
	gatewaypb.RegisterLLBBridgeServer(s, srv)
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	cc, err := grpc.NewClient("passthrough:///gateway",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithUnaryInterceptor(status.UnaryClient), grpc.WithStreamInterceptor(status.StreamClient),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit), grpc.MaxCallSendMsgSize(limit)))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cc.Close())
		s.Stop()
		require.NoError(t, <-served)
	})
	return gatewaypb.NewLLBBridgeClient(cc)
}

func solved(res *client.Result) *fakeBridge {
	return &fakeBridge{solve: func(context.Context, client.SolveRequest) (*client.Result, error) { return res, nil }}
}

// repeat is a file of n bytes.
func repeat(n int) *fakeRef { return &fakeRef{file: strings.Repeat("x", n)} }
