package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	capspb "github.com/openbuildkit/buildkit/api/caps"
	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
)

// daemon is a fake that records the calls it gets and answers as a test says.
type daemon struct {
	controlpb.UnimplementedControlServer
	bridge
	sessions *session.Manager

	mu    sync.Mutex
	calls []string

	solve  func(context.Context, *controlpb.SolveRequest) (*controlpb.SolveResponse, error)
	status func(*controlpb.StatusRequest, controlpb.Control_StatusServer) error
	prune  *controlpb.PruneRequest
}

type bridge struct {
	gatewaypb.UnimplementedLLBBridgeServer
	d        *daemon
	buildID  string
	returned chan *gatewaypb.ReturnRequest
}

func newDaemon() *daemon {
	d := &daemon{sessions: session.NewManager()}
	d.d, d.returned = d, make(chan *gatewaypb.ReturnRequest, 1)
	return d
}

func (d *daemon) called(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, name)
}

func (d *daemon) ListWorkers(_ context.Context, req *controlpb.ListWorkersRequest) (*controlpb.ListWorkersResponse, error) {
	d.called("ListWorkers")
	return &controlpb.ListWorkersResponse{Record: []*workerspb.WorkerRecord{{
		ID: "w", Labels: map[string]string{"filters": filepath.Join(req.Filter...)},
		Platforms:       []*pb.Platform{{OS: "linux", Architecture: "amd64"}},
		GCPolicy:        []*workerspb.GCPolicy{{All: true, KeepDuration: int64(time.Hour), Filters: []string{"f"}}},
		BuildkitVersion: &workerspb.BuildkitVersion{Version: "v1"},
		CDIDevices:      []*workerspb.CDIDevice{{Name: "dev", AutoAllow: true}},
	}}}, nil
}

func (d *daemon) Info(context.Context, *controlpb.InfoRequest) (*controlpb.InfoResponse, error) {
	return &controlpb.InfoResponse{BuildkitVersion: &workerspb.BuildkitVersion{Package: "p", Version: "v", Revision: "r"}}, nil
}

func (d *daemon) Session(s controlpb.Control_SessionServer) error {
	d.called("Session")
	return d.sessions.HandleStream(s)
}

func (d *daemon) Solve(ctx context.Context, req *controlpb.SolveRequest) (*controlpb.SolveResponse, error) {
	d.called("Solve")
	return d.solve(ctx, req)
}

func (d *daemon) Status(req *controlpb.StatusRequest, s controlpb.Control_StatusServer) error {
	d.called("Status")
	return d.status(req, s)
}

func (d *daemon) DiskUsage(context.Context, *controlpb.DiskUsageRequest) (*controlpb.DiskUsageResponse, error) {
	return &controlpb.DiskUsageResponse{Record: []*controlpb.UsageRecord{
		{ID: "c", Size: 5}, {ID: "b", Size: 1, LastUsedAt: timestamppb.New(time.Unix(5, 0))}, {ID: "a", Size: 5, Parents: []string{"b"}},
	}}, nil
}

func (d *daemon) Prune(req *controlpb.PruneRequest, s controlpb.Control_PruneServer) error {
	d.prune = req
	for _, id := range []string{"a", "b"} {
		if err := s.Send(&controlpb.UsageRecord{ID: id}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bridge) Ping(ctx context.Context, _ *gatewaypb.PingRequest) (*gatewaypb.PongResponse, error) {
	b.d.called("Ping")
	b.buildID = metadata.ValueFromIncomingContext(ctx, "buildkit-controlapi-buildid")[0]
	return &gatewaypb.PongResponse{LLBCaps: []*capspb.APICap{{ID: "mergeop", Enabled: true}}}, nil
}

func (b *bridge) Return(_ context.Context, req *gatewaypb.ReturnRequest) (*gatewaypb.ReturnResponse, error) {
	b.d.called("Return")
	b.returned <- req
	return &gatewaypb.ReturnResponse{}, nil
}

// asReturned ends a build as its frontend does.
func (d *daemon) asReturned(ctx context.Context, _ *controlpb.SolveRequest) (*controlpb.SolveResponse, error) {
	select {
	case req := <-d.returned:
		if err := status.FromProto(req.Error); err != nil {
			return nil, err
		}
		return &controlpb.SolveResponse{ExporterResponse: map[string]string{"k": "v"}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *daemon) start(t *testing.T) *client.Client {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", addr)
	require.NoError(t, err)
	srv := grpc.NewServer(grpc.UnaryInterceptor(status.UnaryServer), grpc.StreamInterceptor(status.StreamServer))
	controlpb.RegisterControlServer(srv, d)
	gatewaypb.RegisterLLBBridgeServer(srv, &d.bridge)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	c, err := client.New("unix://" + addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// recorder is a sink.
type recorder struct {
	mu      sync.Mutex
	batches []event.Batch
}

func (r *recorder) Emit(b event.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, b)
}

func TestABuildIsDrivenInTheOrderThatDaemonsExpect(t *testing.T) {
	d := newDaemon()
	var req *controlpb.SolveRequest
	d.solve = func(ctx context.Context, r *controlpb.SolveRequest) (*controlpb.SolveResponse, error) {
		req = r
		return d.asReturned(ctx, r)
	}
	ended := make(chan struct{})
	d.status = func(_ *controlpb.StatusRequest, s controlpb.Control_StatusServer) error {
		_ = s.Send(&controlpb.StatusResponse{Vertexes: []*controlpb.Vertex{{Digest: "sha256:a", Name: "one", Started: timestamppb.New(time.Unix(1, 0))}}})
		<-ended
		return s.Send(&controlpb.StatusResponse{Logs: []*controlpb.VertexLog{{Vertex: "sha256:a", Stream: 1, Msg: []byte("late")}}})
	}
	c := d.start(t)
	progress := &recorder{}
	resp, err := c.Build(t.Context(), client.SolveOpt{
		Ref:           "myref",
		FrontendAttrs: map[string]string{"a": "b"},
		Exports:       []client.Export{{Type: "image", Attrs: map[string]string{"name": "n"}}, {Type: "image"}},
		CacheImports:  []client.CacheOption{{Type: "registry", Attrs: map[string]string{"ref": "r"}}},
		Progress:      progress,
	}, "prod", func(_ context.Context, g gateway.Client) (*gateway.Result, error) {
		opts := g.BuildOpts()
		require.Equal(t, "prod", opts.Product)
		require.True(t, opts.LLBCaps["mergeop"])
		require.Equal(t, "b", opts.Opts["a"])
		require.JSONEq(t, `[{"Type":"registry","Attrs":{"ref":"r"}}]`, opts.Opts["cache-imports"])
		time.AfterFunc(10*time.Millisecond, func() { close(ended) })
		return nil, nil
	})
	require.NoError(t, err)
	require.Equal(t, "myref", resp.Ref)
	require.Equal(t, map[string]string{"k": "v"}, resp.ExporterResponse)

	require.Equal(t, "ListWorkers", d.calls[0])
	require.Equal(t, []string{"ListWorkers", "Ping", "Return", "Session", "Solve", "Status"}, slices.Sorted(slices.Values(d.calls)))
	require.Less(t, slices.Index(d.calls, "Ping"), slices.Index(d.calls, "Return"))
	require.Equal(t, "myref", d.buildID)

	require.Empty(t, req.Definition.GetDef())
	require.Empty(t, req.Frontend)
	require.NotEmpty(t, req.Session)
	require.Len(t, req.Exporters, 2)
	require.Equal(t, "image", req.ExporterDeprecated)
	require.Equal(t, map[string]string{"name": "n"}, req.ExporterAttrsDeprecated)
	require.Equal(t, "registry", req.Cache.Imports[0].Type)

	require.Len(t, progress.batches, 2)
	require.Equal(t, "one", progress.batches[0].Vertices[0].Name)
	require.Nil(t, progress.batches[0].Vertices[0].Completed)
	require.Equal(t, "late", string(progress.batches[1].Logs[0].Data), "what came after the end of the build was lost")
}

func TestTheErrorOfAFrontendIsTheErrorOfTheBuild(t *testing.T) {
	d := newDaemon()
	d.solve = d.asReturned
	_, err := d.start(t).Build(t.Context(), client.SolveOpt{}, "", func(context.Context, gateway.Client) (*gateway.Result, error) {
		return nil, status.WithVertex(errors.New("no such stage"), "sha256:v")
	})
	require.EqualError(t, err, "failed to solve: no such stage")
	var v *status.VertexError
	require.ErrorAs(t, err, &v)
}

func TestADaemonThatIgnoresAFailureIsLeft(t *testing.T) {
	d := newDaemon()
	d.solve = func(ctx context.Context, _ *controlpb.SolveRequest) (*controlpb.SolveResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	start := time.Now()
	_, err := d.start(t).Build(t.Context(), client.SolveOpt{}, "", func(context.Context, gateway.Client) (*gateway.Result, error) {
		return nil, errors.New("my own failure")
	})
	require.EqualError(t, err, "failed to solve: my own failure")
	require.Greater(t, time.Since(start), 2*time.Second)
}

func TestACanceledBuildEndsAtOnce(t *testing.T) {
	d := newDaemon()
	d.solve = d.asReturned
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := d.start(t).Build(ctx, client.SolveOpt{}, "", func(ctx context.Context, _ gateway.Client) (*gateway.Result, error) {
		cancel(errors.New("interrupted"))
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	require.EqualError(t, err, "failed to solve: interrupted")
}

func TestADaemonThatIsNotThere(t *testing.T) {
	c, err := client.New("unix:///nonexistent/b.sock")
	require.NoError(t, err)
	defer c.Close()
	const text = `failed to list workers: Unavailable: connection error: desc = "transport: Error while dialing: dial unix /nonexistent/b.sock: connect: no such file or directory"`
	_, err = c.ListWorkers(t.Context())
	require.EqualError(t, err, text)
	_, err = c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "f"})
	require.EqualError(t, err, text)

	c, err = client.New("nonsense")
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Info(t.Context())
	require.EqualError(t, err, `failed to call info: Unavailable: connection error: desc = "transport: Error while dialing: dial tcp: address nonsense: missing port in address"`)
}

func TestTheDaemonReadsAndWritesOverTheSession(t *testing.T) {
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "made", "dir")
	require.NoError(t, os.WriteFile(filepath.Join(src, "in.txt"), []byte("input"), 0o644))
	fs, err := filesync.NewFS(src)
	require.NoError(t, err)
	defer fs.Close()
	got := t.TempDir()
	var file closeBuffer

	d := newDaemon()
	d.solve = func(ctx context.Context, req *controlpb.SolveRequest) (*controlpb.SolveResponse, error) {
		caller, err := d.sessions.Get(ctx, req.Session)
		if err != nil {
			return nil, err
		}
		if err := filesync.Receive(ctx, caller, filesync.ReceiveOpt{Name: "context", Dest: got}); err != nil {
			return nil, err
		}
		out, err := filesync.NewFS(src)
		if err != nil {
			return nil, err
		}
		defer out.Close()
		if err := filesync.Send(ctx, caller, out, filesync.SendOpt{}); err != nil {
			return nil, err
		}
		w, err := filesync.NewFileWriter(ctx, caller, 1, nil)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, "tarball"); err != nil {
			return nil, err
		}
		return &controlpb.SolveResponse{}, w.Close()
	}
	_, err = d.start(t).Solve(t.Context(), nil, client.SolveOpt{
		Frontend:    "f",
		LocalMounts: map[string]fsutil.FS{"context": fs},
		Exports: []client.Export{
			{Type: "local", OutputDir: dst},
			{Type: "tar", Output: func(map[string]string) (io.WriteCloser, error) { return &file, nil }},
		},
	})
	require.NoError(t, err)
	for _, p := range []string{filepath.Join(got, "in.txt"), filepath.Join(dst, "in.txt")} {
		data, err := os.ReadFile(p)
		require.NoError(t, err)
		require.Equal(t, "input", string(data))
	}
	require.Equal(t, "tarball", string(file.data))
	require.True(t, file.closed)
}

type closeBuffer struct {
	data   []byte
	closed bool
}

func (b *closeBuffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)
	return len(p), nil
}

func (b *closeBuffer) Close() error {
	b.closed = true
	return nil
}

func TestOptionsThatMakeNoSenseAreRefusedBeforeAnythingIsAsked(t *testing.T) {
	def, err := llb.Image("a").Marshal(t.Context())
	require.NoError(t, err)
	writer := func(map[string]string) (io.WriteCloser, error) { return nil, nil }
	for name, c := range map[string]struct {
		def  *pb.Definition
		opt  client.SolveOpt
		text string
	}{
		"nothing to build":                {nil, client.SolveOpt{}, "invalid empty definition"},
		"two things to build":             {def, client.SolveOpt{Frontend: "f"}, "invalid definition for frontend f"},
		"local without a directory":       {def, client.SolveOpt{Exports: []client.Export{{Type: "local"}}}, "output directory is required for local exporter"},
		"local in a mode that is not":     {def, client.SolveOpt{Exports: []client.Export{{Type: "local", OutputDir: t.TempDir(), Attrs: map[string]string{"mode": "replace"}}}}, `invalid local exporter mode "replace"`},
		"tar without a file":              {def, client.SolveOpt{Exports: []client.Export{{Type: "tar"}}}, "output file writer is required for tar exporter"},
		"oci into a directory":            {def, client.SolveOpt{Exports: []client.Export{{Type: "oci", OutputDir: "x"}}}, "output directory is not supported by oci exporter"},
		"image into a file":               {def, client.SolveOpt{Exports: []client.Export{{Type: "image", Output: writer}}}, "output is not supported by image exporter"},
		"a local cache without a place":   {def, client.SolveOpt{CacheExports: []client.CacheOption{{Type: "local"}}}, "local cache exporter requires dest"},
		"a registry cache without a name": {def, client.SolveOpt{CacheExports: []client.CacheOption{{Type: "registry"}}}, "registry cache exporter requires ref"},
		"an import without a place":       {def, client.SolveOpt{CacheImports: []client.CacheOption{{Type: "local"}}}, "local cache importer requires src"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon()
			_, err := d.start(t).Solve(t.Context(), c.def, c.opt)
			require.EqualError(t, err, c.text)
			require.Empty(t, d.calls)
		})
	}
}

func TestTheDaemonTellsOfItself(t *testing.T) {
	c := newDaemon().start(t)
	require.NoError(t, c.Wait(t.Context()))
	info, err := c.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, client.BuildkitVersion{Package: "p", Version: "v", Revision: "r"}, info.BuildkitVersion)
	workers, err := c.ListWorkers(t.Context(), "a", "b")
	require.NoError(t, err)
	require.Equal(t, "a/b", workers[0].Labels["filters"])
	require.Equal(t, time.Hour, workers[0].GCPolicy[0].KeepDuration)
	require.Equal(t, "amd64", workers[0].Platforms[0].Architecture)
	require.True(t, workers[0].CDIDevices[0].AutoAllow)
}

func TestWaitReturnsOnceTheDaemonIsThere(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "d.sock")
	c, err := client.New("unix://" + addr)
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, c.Wait(ctx))

	srv := grpc.NewServer()
	controlpb.RegisterControlServer(srv, controlpb.UnimplementedControlServer{})
	time.AfterFunc(50*time.Millisecond, func() {
		l, err := net.Listen("unix", addr)
		if err == nil {
			_ = srv.Serve(l)
		}
	})
	defer srv.Stop()
	require.NoError(t, c.Wait(t.Context()))
}

func TestStorageIsListedAndFreed(t *testing.T) {
	d := newDaemon()
	c := d.start(t)
	usage, err := c.DiskUsage(t.Context(), client.DiskUsageOpt{})
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a", "c"}, []string{usage[0].ID, usage[1].ID, usage[2].ID})
	require.Equal(t, time.Unix(5, 0).UTC(), *usage[0].LastUsedAt)
	require.Nil(t, usage[1].LastUsedAt)

	var freed []string
	require.NoError(t, c.Prune(t.Context(), client.PruneOpt{All: true, MaxUsedSpace: 1, ReservedSpace: 2, MinFreeSpace: 3, KeepDuration: 4}, func(u client.UsageInfo) error {
		freed = append(freed, u.ID)
		return nil
	}))
	require.Equal(t, []string{"a", "b"}, freed)
	require.EqualValues(t, 1, d.prune.MaxUsedSpace)
	require.EqualValues(t, 2, d.prune.ReservedSpace)
	require.EqualValues(t, 3, d.prune.MinFreeSpace)
	require.EqualValues(t, 4, d.prune.KeepDuration)
}

func TestStatusOfAnUnknownBuild(t *testing.T) {
	d := newDaemon()
	d.status = func(req *controlpb.StatusRequest, _ controlpb.Control_StatusServer) error {
		return &status.UnknownJobError{ID: req.Ref}
	}
	err := d.start(t).Status(t.Context(), "nope", event.Discard)
	require.ErrorContains(t, err, "no such job nope")
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestDecodeStatusKeepsEverything(t *testing.T) {
	at := timestamppb.New(time.Unix(1, 2))
	b := client.DecodeStatus(&controlpb.StatusResponse{
		Vertexes: []*controlpb.Vertex{{Digest: "sha256:a", Inputs: []string{"sha256:b"}, Cached: true, Completed: at, Error: "e", ProgressGroup: &pb.ProgressGroup{Id: "g"}}},
		Statuses: []*controlpb.VertexStatus{{ID: "i", Vertex: "sha256:a", Total: 2, Current: 1, Timestamp: at}},
		Warnings: []*controlpb.VertexWarning{{Vertex: "sha256:a", Level: 2, Short: []byte("s"), Url: "u"}},
	})
	require.Equal(t, []digest.Digest{"sha256:b"}, b.Vertices[0].Inputs)
	require.Equal(t, "g", b.Vertices[0].ProgressGroup.Id)
	require.EqualValues(t, 2, b.Statuses[0].Total)
	require.Equal(t, "u", b.Warnings[0].URL)
}
