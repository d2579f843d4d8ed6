package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	capspb "github.com/openbuildkit/buildkit/api/caps"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
	"github.com/openbuildkit/buildkit/client/gateway"
)

// fakeBridge is a daemon that records what it is asked.
type fakeBridge struct {
	gatewaypb.UnimplementedLLBBridgeServer
	buildIDs  []string
	solved    *gatewaypb.SolveRequest
	result    *gatewaypb.Result
	returned  *gatewaypb.ReturnRequest
	container *gatewaypb.NewContainerRequest
	released  string
	warned    *gatewaypb.WarnRequest
	resolved  *gatewaypb.ResolveSourceMetaRequest
	exec      func(gatewaypb.LLBBridge_ExecProcessServer) error
}

func (b *fakeBridge) Ping(ctx context.Context, _ *gatewaypb.PingRequest) (*gatewaypb.PongResponse, error) {
	b.buildIDs = metadata.ValueFromIncomingContext(ctx, "buildkit-controlapi-buildid")
	return &gatewaypb.PongResponse{
		FrontendAPICaps: []*capspb.APICap{{ID: "readfile", Enabled: true}, {ID: "off"}},
		LLBCaps:         []*capspb.APICap{{ID: "mergeop", Enabled: true}},
		Workers: []*workerspb.WorkerRecord{
			{ID: "w", Labels: map[string]string{"a": "b"}, Platforms: []*pb.Platform{{OS: "linux", Architecture: "amd64"}}},
		},
	}, nil
}

func (b *fakeBridge) Solve(_ context.Context, req *gatewaypb.SolveRequest) (*gatewaypb.SolveResponse, error) {
	b.solved = req
	return &gatewaypb.SolveResponse{Result: b.result}, nil
}

func (b *fakeBridge) Return(_ context.Context, req *gatewaypb.ReturnRequest) (*gatewaypb.ReturnResponse, error) {
	b.returned = req
	return &gatewaypb.ReturnResponse{}, nil
}

func (b *fakeBridge) ReadFile(_ context.Context, req *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	if req.Ref != "r1" {
		return nil, &status.UnknownJobError{ID: req.Ref}
	}
	return &gatewaypb.ReadFileResponse{Data: []byte(req.String())}, nil
}

func (b *fakeBridge) ReadDir(context.Context, *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	return &gatewaypb.ReadDirResponse{Entries: []*fstypes.Stat{{Path: "a"}}}, nil
}

func (b *fakeBridge) StatFile(_ context.Context, req *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	return &gatewaypb.StatFileResponse{Stat: &fstypes.Stat{Path: req.Path}}, nil
}

func (b *fakeBridge) Evaluate(context.Context, *gatewaypb.EvaluateRequest) (*gatewaypb.EvaluateResponse, error) {
	return nil, status.WithVertex(status.New(codes.Unknown, "it broke"), "sha256:v")
}

func (b *fakeBridge) Inputs(context.Context, *gatewaypb.InputsRequest) (*gatewaypb.InputsResponse, error) {
	return &gatewaypb.InputsResponse{Definitions: map[string]*pb.Definition{"in": {Def: [][]byte{{1}}}}}, nil
}

func (b *fakeBridge) Warn(_ context.Context, req *gatewaypb.WarnRequest) (*gatewaypb.WarnResponse, error) {
	b.warned = req
	return &gatewaypb.WarnResponse{}, nil
}

func (b *fakeBridge) ResolveSourceMeta(_ context.Context, req *gatewaypb.ResolveSourceMetaRequest) (*gatewaypb.ResolveSourceMetaResponse, error) {
	b.resolved = req
	return &gatewaypb.ResolveSourceMetaResponse{
		Source: req.Source,
		Image:  &gatewaypb.ResolveSourceImageResponse{Digest: digest.FromString("m").String(), Config: []byte("{}")},
	}, nil
}

func (b *fakeBridge) NewContainer(_ context.Context, req *gatewaypb.NewContainerRequest) (*gatewaypb.NewContainerResponse, error) {
	b.container = req
	return &gatewaypb.NewContainerResponse{}, nil
}

func (b *fakeBridge) ReleaseContainer(_ context.Context, req *gatewaypb.ReleaseContainerRequest) (*gatewaypb.ReleaseContainerResponse, error) {
	b.released = req.ContainerID
	return &gatewaypb.ReleaseContainerResponse{}, nil
}

func (b *fakeBridge) ExecProcess(s gatewaypb.LLBBridge_ExecProcessServer) error { return b.exec(s) }

func dial(t *testing.T, b *fakeBridge) grpc.ClientConnInterface {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(grpc.UnaryInterceptor(status.UnaryServer), grpc.StreamInterceptor(status.StreamServer))
	gatewaypb.RegisterLLBBridgeServer(srv, b)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	cc, err := grpc.NewClient("passthrough:///fake",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(status.UnaryClient),
		grpc.WithStreamInterceptor(status.StreamClient))
	require.NoError(t, err)
	t.Cleanup(func() { cc.Close() })
	return cc
}

func connect(t *testing.T, b *fakeBridge, opts map[string]string) *gateway.Conn {
	t.Helper()
	c, err := gateway.Connect(t.Context(), gateway.BridgeOf(dial(t, b), "build1"),
		gateway.Config{Opts: opts, SessionID: "sess", Product: "prod"})
	require.NoError(t, err)
	return c
}

func TestConnectLearnsWhatTheDaemonCanDo(t *testing.T) {
	b := &fakeBridge{}
	opts := connect(t, b, map[string]string{"k": "v"}).BuildOpts()
	require.Equal(t, []string{"build1"}, b.buildIDs)
	require.Equal(t, map[string]bool{"readfile": true}, opts.Caps)
	require.Equal(t, map[string]bool{"mergeop": true}, opts.LLBCaps)
	require.Equal(t, "amd64", opts.Workers[0].Platforms[0].Architecture)
	require.Equal(t, map[string]string{"k": "v"}, opts.Opts)
	require.Equal(t, "sess", opts.SessionID)
	require.Equal(t, "prod", opts.Product)
}

func TestSolveGivesReferencesThatCanBeReadAndReturned(t *testing.T) {
	def := &pb.Definition{Def: [][]byte{{1}}}
	b := &fakeBridge{result: &gatewaypb.Result{
		Result: &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{Refs: map[string]*gatewaypb.Ref{
			"p1": {Id: "r1", Def: def}, "p2": {},
		}}},
		Metadata: map[string][]byte{"k": []byte("v")},
		Attestations: map[string]*gatewaypb.Attestations{"p1": {Attestation: []*gatewaypb.Attestation{{
			Ref: &gatewaypb.Ref{Id: "r2"}, Path: "/a",
			InTotoSubjects: []*gatewaypb.InTotoSubject{{Name: "s", Digest: []string{"sha256:d"}}},
		}}}},
	}}
	c := connect(t, b, nil)
	err := c.Run(t.Context(), func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		res, err := c.Solve(ctx, gateway.SolveRequest{
			Frontend: "f", FrontendOpt: map[string]string{"a": "b"}, Evaluate: true,
			CacheImports: []gateway.CacheImport{{Type: "local", Attrs: map[string]string{"src": "x"}}},
		})
		require.NoError(t, err)
		ref := res.Refs["p1"]
		require.True(t, proto.Equal(def, ref.Definition()))
		require.Nil(t, res.Refs["p2"])

		data, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: "/f", Range: &gateway.FileRange{Offset: 1, Length: 2}})
		require.NoError(t, err)
		require.Contains(t, string(data), "/f")
		entries, err := ref.ReadDir(ctx, gateway.ReadDirRequest{Path: "/"})
		require.NoError(t, err)
		require.Equal(t, "a", entries[0].Path)
		st, err := ref.StatFile(ctx, "/s")
		require.NoError(t, err)
		require.Equal(t, "/s", st.Path)
		var failed *status.VertexError
		require.ErrorAs(t, ref.Evaluate(ctx), &failed)
		require.Equal(t, "sha256:v", failed.Digest)
		return res, nil
	})
	require.NoError(t, err)
	require.True(t, b.solved.AllowResultReturn && b.solved.AllowResultArrayRef && b.solved.Evaluate)
	require.Equal(t, "local", b.solved.CacheImports[0].Type)
	require.True(t, proto.Equal(b.result, b.returned.Result), "what came back is not what was given: %v", b.returned)
}

func TestAFailedFrontendReturnsItsError(t *testing.T) {
	b := &fakeBridge{}
	c := connect(t, b, nil)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Run(ctx, func(context.Context, gateway.Client) (*gateway.Result, error) {
		cancel()
		return nil, status.WithSource(errors.New("bad line"), &pb.SourceInfo{Filename: "f"})
	})
	require.EqualError(t, err, "bad line")
	require.Nil(t, b.returned.Result)
	require.Equal(t, "bad line", b.returned.Error.Message)
	require.Len(t, b.returned.Error.Details, 1)
}

func TestAnEmptyResultIsAResult(t *testing.T) {
	b := &fakeBridge{}
	require.NoError(t, connect(t, b, nil).Run(t.Context(), func(context.Context, gateway.Client) (*gateway.Result, error) {
		return nil, nil
	}))
	require.NotNil(t, b.returned.Result)
	require.Nil(t, b.returned.Error)
}

type foreign struct{ gateway.Reference }

func TestAReferenceOfAnotherConnectionIsRefused(t *testing.T) {
	b := &fakeBridge{}
	err := connect(t, b, nil).Run(t.Context(), func(context.Context, gateway.Client) (*gateway.Result, error) {
		return &gateway.Result{Ref: foreign{}}, nil
	})
	require.ErrorContains(t, err, "not one of this connection")
	require.NotNil(t, b.returned.Error)
}

func TestEverySolveGetsTheCacheImportsOfTheBuild(t *testing.T) {
	b := &fakeBridge{}
	c := connect(t, b, map[string]string{"cache-imports": "[1]"})
	_, err := c.Solve(t.Context(), gateway.SolveRequest{Frontend: "f"})
	require.NoError(t, err)
	require.Equal(t, "[1]", b.solved.FrontendOpt["cache-imports"])
	_, err = c.Solve(t.Context(), gateway.SolveRequest{Frontend: "f", FrontendOpt: map[string]string{"cache-imports": "[2]"}})
	require.NoError(t, err)
	require.Equal(t, "[2]", b.solved.FrontendOpt["cache-imports"])
}

func TestTheSmallCallsPassTheirFields(t *testing.T) {
	b := &fakeBridge{}
	c := connect(t, b, nil)
	meta, err := c.ResolveSourceMeta(t.Context(), &pb.SourceOp{Identifier: "docker-image://a"}, gateway.ResolveOpt{NoConfig: true, ResolveMode: "pull"})
	require.NoError(t, err)
	require.Equal(t, digest.FromString("m"), meta.Image.Digest)
	require.True(t, b.resolved.Image.NoConfig)
	require.Equal(t, "pull", b.resolved.ResolveMode)
	inputs, err := c.Inputs(t.Context())
	require.NoError(t, err)
	require.Len(t, inputs, 1)
	require.NoError(t, c.Warn(t.Context(), "sha256:v", "short", gateway.WarnOpt{URL: "u"}))
	require.EqualValues(t, 1, b.warned.Level)
	require.Equal(t, "short", string(b.warned.Short))
}

type sink struct {
	bytes.Buffer
	closed bool
}

func (s *sink) Close() error {
	s.closed = true
	return nil
}

func TestAProcessTalksOverItsStream(t *testing.T) {
	b := &fakeBridge{exec: func(s gatewaypb.LLBBridge_ExecProcessServer) error {
		init, err := s.Recv()
		if err != nil {
			return err
		}
		id := init.ProcessID
		send := func(m *gatewaypb.ExecMessage) { m.ProcessID = id; _ = s.Send(m) }
		send(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Started{Started: &gatewaypb.StartedMessage{}}})
		var seen []string
		for len(seen) < 3 {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			switch in := m.Input.(type) {
			case *gatewaypb.ExecMessage_File:
				send(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_File{File: &gatewaypb.FdMessage{Fd: 1, Data: in.File.Data}}})
				if in.File.EOF {
					seen = append(seen, "eof")
				}
			case *gatewaypb.ExecMessage_Resize:
				seen = append(seen, "resize")
			case *gatewaypb.ExecMessage_Signal:
				seen = append(seen, in.Signal.Name)
			}
		}
		send(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_File{File: &gatewaypb.FdMessage{Fd: 2, Data: []byte(strings.Join(seen, " ")), EOF: true}}})
		send(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Exit{Exit: &gatewaypb.ExitMessage{
			Code: 3, Error: status.Proto(&status.ExitError{Code: 3}),
		}}})
		send(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Done{Done: &gatewaypb.DoneMessage{}}})
		return nil
	}}
	c := connect(t, b, nil)
	ctr, err := c.NewContainer(t.Context(), gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/", ResultID: "res"}}})
	require.NoError(t, err)
	require.Equal(t, "res", b.container.Mounts[0].ResultID)

	in, feed := io.Pipe()
	var out, errs sink
	p, err := ctr.Start(t.Context(), gateway.StartRequest{Args: []string{"x"}, Stdin: in, Stdout: &out, Stderr: &errs})
	require.NoError(t, err)
	require.NoError(t, p.Resize(t.Context(), gateway.WindowSize{Rows: 1, Cols: 2}))
	require.NoError(t, p.Signal(t.Context(), syscall.SIGKILL))
	_, err = feed.Write([]byte("hello"))
	require.NoError(t, err)
	feed.Close()
	var exit *status.ExitError
	require.ErrorAs(t, p.Wait(), &exit)
	require.EqualValues(t, 3, exit.Code)
	require.Equal(t, "hello", out.String())
	require.Equal(t, "resize KILL eof", errs.String())
	require.True(t, out.closed && errs.closed)
	require.NoError(t, ctr.Release(t.Context()))
	require.Equal(t, b.container.ContainerID, b.released)
}

func TestAProcessEndsWithItsContext(t *testing.T) {
	b := &fakeBridge{exec: func(s gatewaypb.LLBBridge_ExecProcessServer) error {
		_, _ = s.Recv()
		_ = s.Send(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Started{Started: &gatewaypb.StartedMessage{}}})
		<-s.Context().Done()
		return s.Context().Err()
	}}
	c := connect(t, b, nil)
	ctr, err := c.NewContainer(t.Context(), gateway.NewContainerRequest{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"x"}})
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, p.Wait(), context.Canceled)
}

func TestAProcessThatDoesNotStartSaysWhy(t *testing.T) {
	b := &fakeBridge{exec: func(s gatewaypb.LLBBridge_ExecProcessServer) error {
		_, _ = s.Recv()
		return status.New(codes.NotFound, "no container")
	}}
	c := connect(t, b, nil)
	ctr, err := c.NewContainer(t.Context(), gateway.NewContainerRequest{})
	require.NoError(t, err)
	_, err = ctr.Start(t.Context(), gateway.StartRequest{Args: []string{"x"}})
	require.EqualError(t, err, "no container")
}

func TestAFrontendIsServedOverStandardStreams(t *testing.T) {
	b := &fakeBridge{}
	toDaemon, fromFrontend := io.Pipe()
	toFrontend, fromDaemon := io.Pipe()
	srv := grpc.NewServer()
	gatewaypb.RegisterLLBBridgeServer(srv, b)
	l := bufconn.Listen(1 << 20)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	conn, err := l.Dial()
	require.NoError(t, err)
	go func() { _, _ = io.Copy(conn, toDaemon) }()
	go func() { _, _ = io.Copy(fromDaemon, conn) }()

	env := []string{
		"BUILDKIT_FRONTEND_OPT_0=build-arg:A=b=c", "BUILDKIT_FRONTEND_OPT_1=no-cache=", "PATH=/bin",
		"BUILDKIT_SESSION_ID=s", "BUILDKIT_EXPORTEDPRODUCT=p", `BUILDKIT_WORKERS=[{"id":"own"}]`,
	}
	err = gateway.Serve(t.Context(), toFrontend, fromFrontend, env, func(_ context.Context, c gateway.Client) (*gateway.Result, error) {
		opts := c.BuildOpts()
		require.Equal(t, map[string]string{"build-arg:A": "b=c", "no-cache": ""}, opts.Opts)
		require.Equal(t, "own", opts.Workers[0].ID)
		require.Equal(t, "s", opts.SessionID)
		require.Equal(t, "p", opts.Product)
		return nil, errors.New("refused")
	})
	require.EqualError(t, err, "refused")
	require.Equal(t, "refused", b.returned.Error.Message)
}
