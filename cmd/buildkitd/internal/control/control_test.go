package control_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/openbuildkit/buildkit/api/compat"
	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/gc"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/control"
	"github.com/openbuildkit/buildkit/frontend/gateway"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// daemon is what stands behind the API in these tests.
type daemon struct {
	solve   func(context.Context, solver.Request) (*solver.Response, error)
	batches []event.Batch
	usage   []cache.Usage

	filters []string
	pruned  []gc.Policy
	history *history.Store
}

func (d *daemon) Solve(ctx context.Context, req solver.Request) (*solver.Response, error) {
	return d.solve(ctx, req)
}

func (d *daemon) Status(ctx context.Context, ref string, emit func([]byte) error) error {
	if ref != "build" {
		return &status.UnknownJobError{ID: ref}
	}
	told := feed.New("")
	for _, b := range d.batches {
		told.Emit(b)
	}
	told.Close()
	return told.Watch(ctx, emit)
}

func (d *daemon) DiskUsage(_ context.Context, filters []string) ([]cache.Usage, error) {
	d.filters = filters
	return d.usage, nil
}

func (d *daemon) Prune(_ context.Context, policies []gc.Policy, removed func(cache.Usage)) error {
	d.pruned = policies
	for _, u := range d.usage {
		removed(u)
	}
	return nil
}

// serve serves d on a unix socket.
func serve(t *testing.T, d *daemon) *grpc.ClientConn {
	t.Helper()
	if d.history == nil {
		d.history = history.Open(t.Context(), history.Config{Dir: t.TempDir(), MaxEntries: history.DefaultMaxEntries})
		t.Cleanup(func() { require.NoError(t, d.history.Close()) })
	}
	socket := filepath.Join(t.TempDir(), "d.sock")
	lis, err := net.Listen("unix", socket)
	require.NoError(t, err)
	version := &workerspb.BuildkitVersion{Package: "p", Version: "v", Revision: "r"}
	s := control.NewServer(control.New(control.Config{
		Solver:   d,
		Builds:   gateway.NewBuilds(),
		History:  d.history,
		Sessions: session.NewManager(),
		Storage:  d,
		Traces:   coltracepb.UnimplementedTraceServiceServer{},
		Version:  version,
		Workers: func() []*workerspb.WorkerRecord {
			return []*workerspb.WorkerRecord{{
				ID: "w1", BuildkitVersion: version,
				Labels:    map[string]string{"flavour": "plain", "a.b/c": "x"},
				Platforms: []*pb.Platform{{OS: "linux", Architecture: "amd64"}},
			}}
		},
	}))
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	cc, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(status.UnaryClient), grpc.WithStreamInterceptor(status.StreamClient))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, cc.Close())
		s.Stop()
		require.NoError(t, <-served)
	})
	return cc
}

func TestARequestIsDecoded(t *testing.T) {
	def := &pb.Definition{Def: [][]byte{{1}}}
	for name, tc := range map[string]struct {
		req  *controlpb.SolveRequest
		want solver.Request
	}{
		"of a definition": {
			&controlpb.SolveRequest{Definition: def, Session: "s", Entitlements: []string{"network.host"}, Internal: true},
			solver.Request{Definition: def, Session: "s", Entitlements: []string{"network.host"}, Internal: true},
		},
		"of a frontend": {
			&controlpb.SolveRequest{
				Frontend: "f", FrontendAttrs: map[string]string{"a": "b"},
				FrontendInputs: map[string]*pb.Definition{"in": def},
				Definition:     &pb.Definition{},
			},
			solver.Request{
				Frontend: "f", FrontendOpt: map[string]string{"a": "b"},
				FrontendInputs: map[string]*pb.Definition{"in": def},
			},
		},
		// Build is nil: the client is not waited for.
		"of a definition of nothing": {
			&controlpb.SolveRequest{Definition: &pb.Definition{}},
			solver.Request{},
		},
		"of an exporter, also named in the old way": {
			&controlpb.SolveRequest{
				Frontend: "f", ExporterDeprecated: "oci",
				Exporters: []*controlpb.Exporter{{Type: "oci", Attrs: map[string]string{"name": "n"}}, {Type: "tar"}},
			},
			solver.Request{Frontend: "f", Exporters: []solver.Exporter{{Type: "oci", Attrs: map[string]string{"name": "n"}}, {Type: "tar"}}},
		},
		"of an exporter named in the old way only": {
			&controlpb.SolveRequest{Frontend: "f", ExporterDeprecated: "oci", ExporterAttrsDeprecated: map[string]string{"name": "n"}},
			solver.Request{Frontend: "f", Exporters: []solver.Exporter{{Type: "oci", Attrs: map[string]string{"name": "n"}}}},
		},
		"of the behaviour of an older version": {
			&controlpb.SolveRequest{Frontend: "f", CompatibilityVersion: 20},
			solver.Request{Frontend: "f", Compatibility: compat.V20},
		},
		"with caches named in the old way": {
			&controlpb.SolveRequest{Frontend: "f", Cache: &controlpb.CacheOptions{
				ImportRefsDeprecated: []string{"i"},
				Imports:              []*controlpb.CacheOptionsEntry{{Type: "local", Attrs: map[string]string{"src": "d"}}},
			}},
			solver.Request{
				Frontend: "f",
				CacheImports: []solver.RemoteCache{
					{Type: "local", Attrs: map[string]string{"src": "d"}},
					{Type: "registry", Attrs: map[string]string{"ref": "i"}},
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got solver.Request
			d := &daemon{solve: func(_ context.Context, req solver.Request) (*solver.Response, error) {
				got = req
				return &solver.Response{Exporter: map[string]string{"k": "v"}}, nil
			}}
			tc.req.Ref, tc.want.Ref = "build", "build"
			tc.want.Compatibility = cmp.Or(tc.want.Compatibility, compat.Current)
			resp, err := controlpb.NewControlClient(serve(t, d)).Solve(t.Context(), tc.req)
			require.NoError(t, err)
			require.Equal(t, map[string]string{"k": "v"}, resp.GetExporterResponse())
			if got.Definition != nil {
				require.Equal(t, def.GetDef(), got.Definition.GetDef())
				got.Definition, tc.want.Definition = nil, nil
			}
			if got.FrontendInputs != nil {
				require.Equal(t, def.GetDef(), got.FrontendInputs["in"].GetDef())
				got.FrontendInputs, tc.want.FrontendInputs = nil, nil
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func TestARequestThatCannotBeMetIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		req  *controlpb.SolveRequest
		code codes.Code
		text string
	}{
		"with a remote cache to write": {
			&controlpb.SolveRequest{Ref: "b", Cache: &controlpb.CacheOptions{Exports: []*controlpb.CacheOptionsEntry{{Type: "tape"}}}},
			codes.InvalidArgument, `unknown cache exporter: "tape"`,
		},
		"with a remote cache to write, named in the old way": {
			&controlpb.SolveRequest{Ref: "b", Cache: &controlpb.CacheOptions{ExportRefDeprecated: "r"}},
			codes.InvalidArgument, `unknown cache exporter: "registry"`,
		},
		"with a definition and a frontend": {
			&controlpb.SolveRequest{Ref: "b", Frontend: "f", Definition: &pb.Definition{Def: [][]byte{{1}}}},
			codes.InvalidArgument, "cannot solve with both Definition and Frontend specified",
		},
		"on a proxied network":      {&controlpb.SolveRequest{Ref: "b", ProxyNetwork: true}, codes.Unimplemented, "proxied networks are not supported"},
		"for outputs of no version": {&controlpb.SolveRequest{Ref: "b", CompatibilityVersion: 31}, codes.InvalidArgument, "unknown compatibility version 31"},
	} {
		t.Run(name, func(t *testing.T) {
			var ref string
			d := &daemon{solve: func(ctx context.Context, req solver.Request) (*solver.Response, error) {
				ref = req.Ref
				_, err := req.Build(ctx, nil)
				return nil, err
			}}
			_, err := controlpb.NewControlClient(serve(t, d)).Solve(t.Context(), tc.req)
			require.Equal(t, "b", ref, "the solver knows of it")
			require.EqualError(t, err, tc.text)
			require.Equal(t, tc.code, status.Code(err))
		})
	}
}

func TestAClientDrivesItsBuildOverTheGateway(t *testing.T) {
	started := make(chan struct{})
	d := &daemon{solve: func(ctx context.Context, req solver.Request) (*solver.Response, error) {
		<-started // the client calls before the build runs
		res, err := req.Build(ctx, emptyBridge{})
		if err != nil {
			return nil, err
		}
		return &solver.Response{Exporter: map[string]string{"k": string(res.Metadata["k"])}}, nil
	}}
	cc := serve(t, d)
	solved := make(chan error, 1)
	var resp *controlpb.SolveResponse
	go func() {
		var err error
		resp, err = controlpb.NewControlClient(cc).Solve(t.Context(), &controlpb.SolveRequest{Ref: "build"})
		solved <- err
	}()
	ctx := metadata.AppendToOutgoingContext(t.Context(), gateway.BuildIDKey, "build")
	bridge := gatewaypb.NewLLBBridgeClient(cc)
	pinged := make(chan error, 1)
	go func() {
		_, err := bridge.Ping(ctx, &gatewaypb.PingRequest{})
		pinged <- err
	}()
	close(started)
	require.NoError(t, <-pinged)
	_, err := controlpb.NewControlClient(cc).Solve(t.Context(), &controlpb.SolveRequest{Ref: "build"})
	require.EqualError(t, err, "job ID build exists")
	require.Equal(t, codes.AlreadyExists, status.Code(err))
	_, err = bridge.Return(ctx, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{Metadata: map[string][]byte{"k": []byte("v")}}})
	require.NoError(t, err)
	require.NoError(t, <-solved)
	require.Equal(t, "v", resp.GetExporterResponse()["k"])
}

type emptyBridge struct{ client.Client }

func (emptyBridge) BuildOpts() client.BuildOpts { return client.BuildOpts{} }

func TestStatusTellsEverythingInMessagesOfBoundedSize(t *testing.T) {
	now := time.Now().UTC()
	vertex := digest.FromString("v")
	long := bytes.Repeat([]byte("x"), 5<<20/2)
	var b event.Batch
	for range 20_000 {
		b.Vertices = append(b.Vertices, event.Vertex{Digest: vertex, Inputs: []digest.Digest{vertex}, Name: "n", Started: &now, Cached: true, Error: "e"})
	}
	b.Statuses = []event.Status{{ID: "i", Vertex: vertex, Name: "n", Current: 1, Total: 2, Timestamp: now, Completed: &now}}
	b.Logs = []event.Log{{Vertex: vertex, Stream: event.Stderr, Data: long, Timestamp: now}, {Vertex: vertex, Stream: event.Stdout, Timestamp: now}}
	b.Warnings = []event.Warning{{Vertex: vertex, Level: 1, Short: []byte("s"), URL: "u", Ranges: []*pb.Range{{}}}}
	d := &daemon{batches: []event.Batch{b, {}}}
	stream, err := controlpb.NewControlClient(serve(t, d)).Status(t.Context(), &controlpb.StatusRequest{Ref: "build"})
	require.NoError(t, err)

	header, err := stream.Header()
	require.NoError(t, err)
	at, err := time.Parse(time.RFC3339Nano, header.Get("buildkit-current-timestamp")[0])
	require.NoError(t, err)
	require.WithinDuration(t, now, at, time.Minute)

	var all controlpb.StatusResponse
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		all.Vertexes = append(all.Vertexes, part.GetVertexes()...)
		all.Statuses = append(all.Statuses, part.GetStatuses()...)
		all.Logs = append(all.Logs, part.GetLogs()...)
		all.Warnings = append(all.Warnings, part.GetWarnings()...)
	}
	require.Len(t, all.GetVertexes(), len(b.Vertices)+1, "one more for the end of what has started")
	v := all.GetVertexes()[0]
	require.Equal(t, vertex.String(), v.GetDigest())
	require.Equal(t, []string{vertex.String()}, v.GetInputs())
	require.True(t, v.GetStarted().AsTime().Equal(now))
	require.Nil(t, v.GetCompleted())
	require.Len(t, all.GetStatuses(), 1)
	require.True(t, all.GetStatuses()[0].GetCompleted().AsTime().Equal(now))
	var logged []byte
	for _, l := range all.GetLogs() {
		logged = append(logged, l.GetMsg()...)
	}
	require.Equal(t, long, logged)
	require.EqualValues(t, event.Stdout, all.GetLogs()[len(all.GetLogs())-1].GetStream(), "a log without data is one")
	require.Len(t, all.GetWarnings(), 1)

	stream, err = controlpb.NewControlClient(serve(t, d)).Status(t.Context(), &controlpb.StatusRequest{Ref: "other"})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.EqualError(t, err, "no such job other")
	require.True(t, status.IsUnknownJob(err))
}

func TestDiskUsageAndPrune(t *testing.T) {
	now := time.Now()
	recent, old := now.Add(-time.Minute), now.Add(-time.Hour)
	d := &daemon{usage: []cache.Usage{
		{ID: "recent", LastUsedAt: &recent, Type: cache.LocalSource, Shared: true, Parents: []string{"never"}, Size: 7, UsageCount: 3},
		{ID: "old", LastUsedAt: &old, Mutable: true},
		{ID: "never", CreatedAt: now, Description: "d", InUse: true},
	}}
	c := controlpb.NewControlClient(serve(t, d))

	resp, err := c.DiskUsage(t.Context(), &controlpb.DiskUsageRequest{Filter: []string{"type==regular"}})
	require.NoError(t, err)
	require.Equal(t, []string{"type==regular"}, d.filters)
	require.Len(t, resp.GetRecord(), 3)
	require.Equal(t, "source.local", resp.GetRecord()[0].GetRecordType())
	require.True(t, resp.GetRecord()[0].GetShared())
	require.Equal(t, "regular", resp.GetRecord()[1].GetRecordType())
	require.Nil(t, resp.GetRecord()[2].GetLastUsedAt())

	resp, err = c.DiskUsage(t.Context(), &controlpb.DiskUsageRequest{AgeLimit: int64(time.Minute * 30)})
	require.NoError(t, err)
	require.Len(t, resp.GetRecord(), 2)
	require.Equal(t, "old", resp.GetRecord()[0].GetID())

	stream, err := c.Prune(t.Context(), &controlpb.PruneRequest{
		All: true, Filter: []string{"x"}, KeepDuration: 5, ReservedSpace: 1, MaxUsedSpace: 2, MinFreeSpace: 3,
	})
	require.NoError(t, err)
	var gone []string
	for {
		u, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Empty(t, u.GetRecordType())
		gone = append(gone, u.GetID())
	}
	require.Equal(t, []string{"recent", "old", "never"}, gone)
	require.Equal(t, []gc.Policy{{All: true, Filters: []string{"x"}, KeepDuration: 5, ReservedSpace: 1, MaxUsedSpace: 2, MinFreeSpace: 3}}, d.pruned)

	stream, err = c.Prune(t.Context(), &controlpb.PruneRequest{MaxUsedSpace: -1})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestWorkersAreFiltered(t *testing.T) {
	c := controlpb.NewControlClient(serve(t, &daemon{}))
	for filter, want := range map[string]int{
		"":                        1,
		"id==w1":                  1,
		"id==w2":                  0,
		"labels.flavour==plain":   1,
		`labels."a.b/c"==x`:       1,
		"labels.flavour==fancy":   0,
		"nosuch==x":               0,
		"id==w1,labels.nosuch==x": 0,
	} {
		req := &controlpb.ListWorkersRequest{}
		if filter != "" {
			req.Filter = []string{filter}
		}
		resp, err := c.ListWorkers(t.Context(), req)
		require.NoError(t, err, filter)
		require.Len(t, resp.GetRecord(), want, filter)
	}
	_, err := c.ListWorkers(t.Context(), &controlpb.ListWorkersRequest{Filter: []string{"a=="}})
	require.Equal(t, codes.InvalidArgument, status.Code(err))

	info, err := c.Info(t.Context(), &controlpb.InfoRequest{})
	require.NoError(t, err)
	require.Equal(t, "v", info.GetBuildkitVersion().GetVersion())
}

func TestErrorsKeepTheirTypesAndPanicsTheDaemon(t *testing.T) {
	d := &daemon{}
	c := controlpb.NewControlClient(serve(t, d))
	d.solve = func(context.Context, solver.Request) (*solver.Response, error) {
		return nil, &status.ExitError{Code: 3, Err: errors.New("failed")}
	}
	_, err := c.Solve(t.Context(), &controlpb.SolveRequest{Ref: "b", Frontend: "f"})
	var exit *status.ExitError
	require.ErrorAs(t, err, &exit)
	require.EqualValues(t, 3, exit.Code)

	d.solve = func(context.Context, solver.Request) (*solver.Response, error) { panic("ouch") }
	_, err = c.Solve(t.Context(), &controlpb.SolveRequest{Ref: "b", Frontend: "f"})
	require.ErrorContains(t, err, "panic: ouch")
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotEmpty(t, status.Stacks(err))
	_, err = c.Info(t.Context(), &controlpb.InfoRequest{})
	require.NoError(t, err)
}

func TestASessionIsServed(t *testing.T) {
	cc := serve(t, &daemon{})
	s, err := session.New("")
	require.NoError(t, err)
	ran := make(chan error, 1)
	dial := session.GRPCDialer(controlpb.NewControlClient(cc))
	dialled := make(chan struct{})
	go func() {
		ran <- s.Run(t.Context(), func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			defer close(dialled)
			return dial(ctx, proto, meta)
		})
	}()
	<-dialled
	require.NoError(t, s.Close())
	require.NoError(t, <-ran)
}

func TestCallsOfABuildThatIsRefusedAreToldWhyAtOnce(t *testing.T) {
	cc := serve(t, &daemon{solve: func(ctx context.Context, req solver.Request) (*solver.Response, error) {
		_, err := req.Build(ctx, nil)
		return nil, err
	}})
	_, err := controlpb.NewControlClient(cc).Solve(t.Context(), &controlpb.SolveRequest{Ref: "r", CompatibilityVersion: 7})
	require.Error(t, err)
	start := time.Now()
	ctx := metadata.AppendToOutgoingContext(t.Context(), gateway.BuildIDKey, "r")
	_, pinged := gatewaypb.NewLLBBridgeClient(cc).Ping(ctx, &gatewaypb.PingRequest{})
	require.EqualError(t, pinged, err.Error())
	require.Less(t, time.Since(start), time.Second)
}

func TestHealthAndReflectionAreServed(t *testing.T) {
	cc := serve(t, &daemon{})
	h, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, h.GetStatus())

	stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}))
	resp, err := stream.Recv()
	require.NoError(t, err)
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	require.Subset(t, names, []string{
		"moby.buildkit.v1.Control", "moby.buildkit.v1.frontend.LLBBridge", "containerd.services.content.v1.Content",
		"opentelemetry.proto.collector.trace.v1.TraceService", "grpc.health.v1.Health",
	})
}
