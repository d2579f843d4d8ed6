package e2e_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// requests returns for each method of the control API what a sensible client sends.
func requests(tb testing.TB, ref string) map[string][]proto.Message {
	tb.Helper()
	definition := marshal(tb, llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("x"))))
	cache := &controlpb.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": "127.0.0.1:1/x"}}
	policy := &sourcepolicypb.Policy{Version: 1, Rules: []*sourcepolicypb.Rule{{
		Action: sourcepolicypb.PolicyAction_CONVERT,
		Selector: &sourcepolicypb.Selector{Identifier: "docker-image://*", Constraints: []*sourcepolicypb.AttrConstraint{{
			Key: "k", Value: "v", Condition: sourcepolicypb.AttrMatch_MATCHES,
		}}},
		Updates: &sourcepolicypb.Update{Identifier: "docker-image://x", Attrs: map[string]string{"a": "b"}},
	}}}
	export := &controlpb.Exporter{Type: "image", Attrs: map[string]string{"name": "x"}}
	return map[string][]proto.Message{
		"DiskUsage":   {&controlpb.DiskUsageRequest{Filter: []string{"id==x"}, AgeLimit: 1}},
		"Prune":       {&controlpb.PruneRequest{Filter: []string{"id==x"}, KeepDuration: 1, MaxUsedSpace: 1 << 40, MinFreeSpace: 1, ReservedSpace: 1 << 40}},
		"ListWorkers": {&controlpb.ListWorkersRequest{Filter: []string{"id==x"}}},
		"Info":        {&controlpb.InfoRequest{}},
		"Status":      {&controlpb.StatusRequest{Ref: ref}},
		"ListenBuildHistory": {&controlpb.BuildHistoryRequest{
			Ref: ref, EarlyExit: true, Filter: []string{"status==completed"}, Limit: 1,
		}},
		"UpdateBuildHistory": {&controlpb.UpdateBuildHistoryRequest{Ref: ref, Pinned: true}},
		"Solve": {
			&controlpb.SolveRequest{
				Ref: "r", Definition: definition, Exporters: []*controlpb.Exporter{export}, Internal: true, SourcePolicy: policy,
				Cache: &controlpb.CacheOptions{Imports: []*controlpb.CacheOptionsEntry{cache}}, CompatibilityVersion: 20,
			},
			&controlpb.SolveRequest{
				Ref: "r", Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"filename": "x"}, Internal: true,
				FrontendInputs: map[string]*pb.Definition{"context": definition, "dockerfile": definition},
			},
		},
	}
}

// Every field of every message that a client sends, at every depth, missing or odd: there is an answer,
// and the daemon is none the worse.
func TestOddRequestsOfAClientGetAnswers(t *testing.T) {
	d := start(t, harness.DaemonOptions{Debug: true})
	conn := dial(t, d.Addr)
	ref := library.NewRef()
	solved, err := controlpb.NewControlClient(conn).Solve(t.Context(), &controlpb.SolveRequest{Ref: ref, Definition: marshal(t, llb.Image("busybox"))})
	require.NoError(t, err)
	require.NotNil(t, solved)
	goroutines := d.Goroutines(t)
	resetPeak(t, d.Pid())
	methods := controlpb.File_api_control_control_proto.Services().ByName("Control").Methods()
	sent := 0
	for i := range methods.Len() {
		name := string(methods.Get(i).Name())
		if name == "Session" {
			continue // a tunnel: see TestOddAnswersOfClientsHurtNobody
		}
		t.Run(name, func(t *testing.T) {
			good := requests(t, ref)[name]
			require.NotEmpty(t, good, "no message for %s", name)
			for _, msg := range good {
				for _, m := range append(mutations(msg), msg) {
					if solve, ok := m.(*controlpb.SolveRequest); ok && solve.GetRef() == "r" {
						solve.Ref = library.NewRef()
					}
					data, err := proto.Marshal(m)
					if err != nil {
						continue // text that is no UTF-8, which no client can send
					}
					sent++
					requireAnswer(t, conn, "/moby.buildkit.v1.Control/"+name, data, m)
				}
			}
		})
	}
	t.Logf("%d requests", sent)
	require.Greater(t, sent, 200)
	require.Less(t, peakMemory(t, d.Pid()), int64(daemonMemory))
	require.NotContains(t, d.Logs(), "panic")
	requireAlive(t, d)
	d.RequireIdle(t)
	requireGoroutines(t, d, goroutines, 20*time.Second)
}

// requireAnswer makes a call and fails the test unless its end comes, and is no fault of the daemon.
func requireAnswer(tb testing.TB, conn *grpc.ClientConn, method string, data []byte, msg proto.Message) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), clientTimeout)
	defer cancel()
	if waits(msg) {
		ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
	if err == nil {
		err = stream.SendMsg(data)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		var reply []byte
		err = stream.RecvMsg(&reply)
	}
	if errors.Is(err, io.EOF) || waits(msg) && grpcstatus.Code(err) == codes.DeadlineExceeded {
		return
	}
	text := msg.ProtoReflect().Descriptor().Name()
	require.NotContains(tb, []codes.Code{codes.Unavailable, codes.Internal, codes.DeadlineExceeded}, grpcstatus.Code(err), "%s %v: %v", text, msg, err)
	require.NotContains(tb, err.Error(), "panic", "%v", msg)
}

// waits tells whether a request asks for events to come, or for a build that the client drives.
func waits(msg proto.Message) bool {
	switch req := msg.(type) {
	case *controlpb.BuildHistoryRequest:
		return !req.GetEarlyExit()
	case *controlpb.SolveRequest:
		return len(req.GetDefinition().GetDef()) == 0 && req.GetFrontend() == ""
	}
	return false
}
