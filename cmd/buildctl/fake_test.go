package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
	"github.com/openbuildkit/buildkit/session"
)

// fakeDaemon answers builds by the name of their frontend: fail.v0 fails, request.v0 answers a
// subrequest, others print their options into the exporter's response.
type fakeDaemon struct {
	controlpb.UnimplementedControlServer
	sessions *session.Manager
	returned chan *gatewaypb.ReturnRequest
}

func (d *fakeDaemon) ListWorkers(context.Context, *controlpb.ListWorkersRequest) (*controlpb.ListWorkersResponse, error) {
	return &controlpb.ListWorkersResponse{Record: []*workerspb.WorkerRecord{{
		ID:              "worker-one",
		Labels:          map[string]string{"flavour": "fake", "org.mobyproject.buildkit.worker.oci.process-mode": "sandbox"},
		Platforms:       []*pb.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}},
		GCPolicy:        []*workerspb.GCPolicy{{All: true, Filters: []string{"type==a"}, KeepDuration: 3600e9, ReservedSpace: 1e9}},
		BuildkitVersion: &workerspb.BuildkitVersion{Package: "p", Version: "v1", DockerfileVersion: "1.2"},
		CDIDevices:      []*workerspb.CDIDevice{{Name: "v/c=n", AutoAllow: true}},
	}}}, nil
}

func (d *fakeDaemon) Info(context.Context, *controlpb.InfoRequest) (*controlpb.InfoResponse, error) {
	return &controlpb.InfoResponse{BuildkitVersion: &workerspb.BuildkitVersion{Package: "p", Version: "v1", Revision: "r", DockerfileVersion: "1.2"}}, nil
}

func (d *fakeDaemon) records() []*controlpb.UsageRecord {
	return []*controlpb.UsageRecord{
		{ID: strings.Repeat("a", 25), Size: 8192, Mutable: true, CreatedAt: timestamppb.Now(), Description: "local source for context", RecordType: "source.local"},
		{ID: strings.Repeat("b", 25), Size: 3611395, InUse: true, CreatedAt: timestamppb.Now(), Parents: []string{"x", "y"}, UsageCount: 2, LastUsedAt: timestamppb.Now(), RecordType: "regular"},
		{ID: strings.Repeat("c", 25), Size: 4096, Shared: true, CreatedAt: timestamppb.Now(), RecordType: "regular"},
	}
}

func (d *fakeDaemon) DiskUsage(_ context.Context, req *controlpb.DiskUsageRequest) (*controlpb.DiskUsageResponse, error) {
	if len(req.Filter) > 0 && req.Filter[0] == "none" {
		return &controlpb.DiskUsageResponse{}, nil
	}
	return &controlpb.DiskUsageResponse{Record: d.records()}, nil
}

// Prune frees every record, none if there is a filter, and tells the request to the filter "echo".
func (d *fakeDaemon) Prune(req *controlpb.PruneRequest, s controlpb.Control_PruneServer) error {
	if slices.Equal(req.Filter, []string{"echo"}) {
		return s.Send(&controlpb.UsageRecord{Description: fmt.Sprintf("all=%v duration=%v max=%d reserved=%d free=%d",
			req.All, time.Duration(req.KeepDuration), req.MaxUsedSpace, req.ReservedSpace, req.MinFreeSpace)})
	}
	if len(req.Filter) > 0 {
		return nil
	}
	for _, r := range d.records() {
		if err := s.Send(r); err != nil {
			return err
		}
	}
	return nil
}

// ListenBuildHistory tells of one build that runs, and of one that has failed.
func (d *fakeDaemon) ListenBuildHistory(req *controlpb.BuildHistoryRequest, s controlpb.Control_ListenBuildHistoryServer) error {
	events := []*controlpb.BuildHistoryEvent{
		{Type: controlpb.BuildHistoryEventType_STARTED, Record: &controlpb.BuildHistoryRecord{Ref: "running"}},
		{Type: controlpb.BuildHistoryEventType_COMPLETE, Record: &controlpb.BuildHistoryRecord{
			Ref: "failed", Error: &spb.Status{Message: "no luck"}, NumCachedSteps: 1, NumTotalSteps: 3, NumWarnings: 2,
			Logs:  &controlpb.Descriptor{MediaType: "logs/type", Digest: "sha256:l", Size: 2048, Annotations: map[string]string{"b": "1", "a": "2"}},
			Trace: &controlpb.Descriptor{MediaType: "trace/type", Digest: fakeBlob.String(), Size: 5}, CreatedAt: fakeTime, CompletedAt: fakeTime,
		}},
		{Type: controlpb.BuildHistoryEventType_COMPLETE, Record: &controlpb.BuildHistoryRecord{
			Ref: "kept", Pinned: true, Generation: 3, CreatedAt: fakeTime, CompletedAt: fakeTime,
		}},
	}
	for _, e := range events {
		if req.Ref != "" && req.Ref != e.Record.Ref || req.ActiveOnly && e.Type == controlpb.BuildHistoryEventType_COMPLETE {
			continue
		}
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return nil
}

// fakeBlob is the only blob of the daemon.
var fakeBlob = digest.FromString("spans")

// fakeTime is that of all records.
var fakeTime = timestamppb.New(time.Unix(1_000_000_000, 0))

// UpdateBuildHistory knows the builds that have ended, of which one cannot be deleted.
func (d *fakeDaemon) UpdateBuildHistory(_ context.Context, req *controlpb.UpdateBuildHistoryRequest) (*controlpb.UpdateBuildHistoryResponse, error) {
	switch {
	case req.Ref == "kept" && req.Delete:
		return nil, status.New(codes.PermissionDenied, "not this one")
	case req.Ref == "failed" || req.Ref == "kept":
		return &controlpb.UpdateBuildHistoryResponse{}, nil
	}
	return nil, status.New(codes.NotFound, "failed to retrieve ref "+req.Ref+": file does not exist")
}

// fakeContent is the content service of the daemon.
type fakeContent struct {
	contentapi.UnimplementedContentServer
}

// Read sends the blob in two parts.
func (fakeContent) Read(req *contentapi.ReadContentRequest, s contentapi.Content_ReadServer) error {
	if req.Digest != fakeBlob.String() {
		return status.New(codes.NotFound, "content digest "+req.Digest+": not found")
	}
	return errors.Join(s.Send(&contentapi.ReadContentResponse{Data: []byte("sp")}), s.Send(&contentapi.ReadContentResponse{Data: []byte("ans")}))
}

func (d *fakeDaemon) Session(s controlpb.Control_SessionServer) error {
	return d.sessions.HandleStream(s)
}

func (d *fakeDaemon) Solve(ctx context.Context, req *controlpb.SolveRequest) (*controlpb.SolveResponse, error) {
	select {
	case ret := <-d.returned:
		if err := status.FromProto(ret.Error); err != nil {
			return nil, err
		}
		resp := map[string]string{}
		for k, v := range ret.Result.Metadata {
			if name, ok := strings.CutPrefix(k, "frontend."); ok {
				resp[name] = string(v)
			}
		}
		if len(req.Exporters) > 0 {
			resp["exporter"] = req.Exporters[0].Type
		}
		if req.ProxyNetwork {
			resp["proxy"] = "true"
		}
		return &controlpb.SolveResponse{ExporterResponse: resp}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *fakeDaemon) Status(req *controlpb.StatusRequest, s controlpb.Control_StatusServer) error {
	if req.Ref == "none" {
		return &status.UnknownJobError{ID: req.Ref}
	}
	now := timestamppb.Now()
	return s.Send(&controlpb.StatusResponse{
		Vertexes: []*controlpb.Vertex{
			{Digest: "sha256:a", Name: "[1/2] FROM a", Started: now, Completed: now},
			{Digest: "sha256:b", Name: "[2/2] RUN b", Started: now, Completed: now},
			{Digest: "sha256:c", Name: "[internal] c", Started: now, Completed: now, Cached: true},
		},
		Logs: []*controlpb.VertexLog{{Vertex: "sha256:b", Stream: 1, Msg: []byte("hello\n"), Timestamp: now}},
	})
}

// fakeBridge is the gateway API of a fakeDaemon.
type fakeBridge struct {
	gatewaypb.UnimplementedLLBBridgeServer
	d *fakeDaemon
}

func (b fakeBridge) Ping(context.Context, *gatewaypb.PingRequest) (*gatewaypb.PongResponse, error) {
	return &gatewaypb.PongResponse{}, nil
}

func (b fakeBridge) Return(_ context.Context, req *gatewaypb.ReturnRequest) (*gatewaypb.ReturnResponse, error) {
	b.d.returned <- req
	return &gatewaypb.ReturnResponse{}, nil
}

func (b fakeBridge) Solve(_ context.Context, req *gatewaypb.SolveRequest) (*gatewaypb.SolveResponse, error) {
	meta := map[string][]byte{}
	switch req.Frontend {
	case "fail.v0":
		err := status.WithSource(status.New(2, "no such file"), &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM a\nCOPY x .\n")},
			&pb.Range{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 2}})
		return nil, err
	case "request.v0":
		meta["result.json"] = []byte(`{"a":1}`)
		meta["version"] = []byte("1")
		if req.FrontendOpt["requestid"] == "text" {
			meta["result.txt"] = []byte("for people")
		}
	default:
		for k, v := range req.FrontendOpt {
			meta["frontend."+k] = []byte(v)
		}
		for _, md := range req.GetDefinition().GetMetadata() {
			if md.IgnoreCache {
				meta["frontend.ignore-cache"] = []byte("true")
			}
		}
	}
	return &gatewaypb.SolveResponse{Result: &gatewaypb.Result{Metadata: meta}}, nil
}
