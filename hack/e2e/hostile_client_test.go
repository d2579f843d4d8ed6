package e2e_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	contentpb "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/crypto/nacl/sign"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	exporterpb "github.com/openbuildkit/buildkit/api/session/exporter"
	filesyncpb "github.com/openbuildkit/buildkit/api/session/filesync"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	secretspb "github.com/openbuildkit/buildkit/api/session/secrets"
	sshpb "github.com/openbuildkit/buildkit/api/session/ssh"
	uploadpb "github.com/openbuildkit/buildkit/api/session/upload"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session"
)

// answer is what a client does when the daemon calls it.
type answer func(stream grpc.ServerStream) error

// errLeaves is the answer of a client that ends its session.
var errLeaves = errors.New("the client leaves")

// answers are services of a session by the full name of their methods.
type answers map[string]answer

// Register offers the methods. On the wire a method without streams is a stream of one message.
func (a answers) Register(srv *grpc.Server) {
	services := map[string]*grpc.ServiceDesc{}
	for name, fn := range a {
		service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		if services[service] == nil {
			services[service] = &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
		}
		services[service].Streams = append(services[service].Streams, grpc.StreamDesc{
			StreamName: method, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return fn(stream) },
		})
	}
	for _, desc := range services {
		srv.RegisterService(desc, nil)
	}
}

// raw is a message of any bytes.
func raw(data []byte) *session.Frame { return &session.Frame{Data: data} }

// say sends messages and ends the call.
func say(messages ...proto.Message) answer {
	return func(stream grpc.ServerStream) error {
		for _, m := range messages {
			if err := stream.SendMsg(m); err != nil {
				return err
			}
		}
		return nil
	}
}

// hang does nothing until the daemon ends the call.
func hang(stream grpc.ServerStream) error {
	<-stream.Context().Done()
	return context.Cause(stream.Context())
}

// oddAnswers are what no sensible client answers to a call whose answer is good.
func oddAnswers(good proto.Message, rest ...proto.Message) map[string]answer {
	all := map[string]answer{
		"nothing": say(),
		"twice":   say(slices.Concat([]proto.Message{good}, rest, []proto.Message{good}, rest)...),
		"without end": func(stream grpc.ServerStream) error {
			for {
				if err := stream.SendMsg(good); err != nil {
					return err
				}
			}
		},
		"garbage": func(stream grpc.ServerStream) error {
			return stream.SendMsg(raw([]byte("\xff\xff\xff\xff\x0f garbage")))
		},
		"15 MiB of nothing": func(stream grpc.ServerStream) error {
			padding := protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, 15<<20))
			return stream.SendMsg(raw(padding))
		},
		"silence": hang,
		"nothing more": func(stream grpc.ServerStream) error {
			if err := stream.SendMsg(good); err != nil {
				return err
			}
			return hang(stream)
		},
		"end of the session":        func(grpc.ServerStream) error { return errLeaves },
		"a message of another kind": say(&pb.Definition{Def: [][]byte{[]byte("x")}, Metadata: map[string]*pb.OpMetadata{"x": {}}}),
		"a long error":              func(grpc.ServerStream) error { return errors.New(strings.Repeat("long ", 1<<18)) },
	}
	for _, code := range []codes.Code{
		codes.Canceled, codes.Unknown, codes.InvalidArgument, codes.DeadlineExceeded, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.ResourceExhausted, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.Unauthenticated, 77,
	} {
		all["error "+code.String()] = func(grpc.ServerStream) error { return grpcstatus.Error(code, "refused") }
	}
	seen := map[string]bool{}
	for _, m := range mutations(good) {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || seen[string(data)] {
			continue
		}
		seen[string(data)] = true
		text := fmt.Sprint(m)
		all["odd "+text[:min(len(text), 60)]+fmt.Sprint(len(all))] = say(slices.Concat([]proto.Message{m}, rest)...)
	}
	return all
}

// calling is what the daemon calls clients for.
type calling struct {
	// method is the one under test; good answers to it, of which the first is the one that is made odd.
	method string
	good   []proto.Message
	// others answer well to what else is called.
	others answers
	solve  *controlpb.SolveRequest
}

func callsOfTheDaemon(tb testing.TB) []calling {
	tb.Helper()
	base := llb.Image("busybox")
	step := func(o llb.RunOption) *pb.Definition {
		return marshal(tb, base.Run(llb.Shell("cat /run/secrets/s; ls /run/buildkit; true"), llb.IgnoreCache(), o).Root())
	}
	made := marshal(tb, llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("made"))))
	tokens := registrytest.StartTokens(tb, registrytest.TokenOptions{Users: passwords, Rights: func(string, string) string { return "" }})
	private := marshal(tb, llb.Image(registrytest.Start(tb, registrytest.Options{Users: passwords, Tokens: tokens}).Addr+"/ann/app:1"))
	const (
		auth    = "/moby.filesync.v1.Auth/"
		content = "/containerd.services.content.v1.Content/"
	)
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`)
	inLayout := digest.FromBytes(manifest)
	layout := marshal(tb, llb.OCILayout("store@"+inLayout.String(), llb.OCIStore("", "store")))
	read := &contentpb.ReadContentResponse{Data: manifest}
	written := &contentpb.WriteContentResponse{Action: contentpb.WriteAction_COMMIT, Offset: 1, Total: 1, Digest: inLayout.String()}
	toStore := &controlpb.SolveRequest{Definition: made, Exporters: []*controlpb.Exporter{{Type: "oci", Attrs: map[string]string{"tar": "false"}}}}
	allow := &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Decision{Decision: &policypb.DecisionResponse{
		Action: sourcepolicypb.PolicyAction_CONVERT, Update: &pb.SourceOp{Identifier: busyboxSource, Attrs: map[string]string{"a": "b"}},
		DenyMessages: []*policypb.DenyMessage{{Message: "no"}},
	}}}
	ask := &policypb.CheckPolicyResponse{Result: &policypb.CheckPolicyResponse_Request{Request: &gatewaypb.ResolveSourceMetaRequest{
		Source: &pb.SourceOp{Identifier: busyboxSource}, Platform: &pb.Platform{OS: "linux", Architecture: "amd64"}, ResolveMode: "default",
		Image: &gatewaypb.ResolveSourceImageRequest{AttestationChain: true, ResolveAttestations: []string{"t"}},
	}}}
	judged := &controlpb.SolveRequest{Definition: marshal(tb, base), SourcePolicySession: "own"}
	local := marshal(tb, llb.Local("context"))
	packets := []proto.Message{
		&fstypes.Packet{Type: fstypes.PACKET_STAT, Stat: &fstypes.Stat{Path: "f", Mode: 0o644, Size: 1, Linkname: "", Xattrs: map[string][]byte{"user.x": []byte("x")}}},
		&fstypes.Packet{Type: fstypes.PACKET_STAT},
		&fstypes.Packet{Type: fstypes.PACKET_DATA, Data: []byte("x")},
		&fstypes.Packet{Type: fstypes.PACKET_DATA},
		&fstypes.Packet{Type: fstypes.PACKET_FIN},
	}
	chosen := &controlpb.SolveRequest{Definition: made, EnableSessionExporter: true}
	choice := &exporterpb.FindExportersResponse{Exporters: []*exporterpb.ExporterRequest{{Type: "local", Attrs: map[string]string{"mode": "delete"}}}}
	return []calling{
		{method: "/moby.buildkit.secrets.v1.Secrets/GetSecret", good: []proto.Message{&secretspb.GetSecretResponse{Data: []byte("s")}}, solve: &controlpb.SolveRequest{Definition: step(llb.AddSecret("/run/secrets/s"))}},
		{method: "/moby.sshforward.v1.SSH/CheckAgent", good: []proto.Message{&sshpb.CheckAgentResponse{}}, solve: &controlpb.SolveRequest{Definition: step(llb.AddSSHSocket())}},
		{method: "/moby.upload.v1.Upload/Pull", good: []proto.Message{&uploadpb.BytesMessage{Data: []byte("x")}}, solve: &controlpb.SolveRequest{Definition: marshal(tb, llb.HTTP("http://buildkit-session/x"))}},
		{method: auth + "Credentials", good: []proto.Message{&authpb.CredentialsResponse{Username: "ann", Secret: "x"}}, solve: &controlpb.SolveRequest{Definition: private}},
		{method: auth + "GetTokenAuthority", good: []proto.Message{&authpb.GetTokenAuthorityResponse{PublicKey: make([]byte, 32)}}, solve: &controlpb.SolveRequest{Definition: private}},
		{
			method: auth + "VerifyTokenAuthority", good: []proto.Message{&authpb.VerifyTokenAuthorityResponse{Signed: make([]byte, 96)}}, solve: &controlpb.SolveRequest{Definition: private},
			others: answers{auth + "GetTokenAuthority": say(&authpb.GetTokenAuthorityResponse{PublicKey: make([]byte, 32)})},
		},
		{
			method: auth + "FetchToken", good: []proto.Message{&authpb.FetchTokenResponse{Token: "x", ExpiresIn: 60, IssuedAt: 1}}, solve: &controlpb.SolveRequest{Definition: private},
			others: tokenAuthority(tb),
		},
		{method: "/moby.filesync.v1.FileSync/DiffCopy", good: packets, solve: &controlpb.SolveRequest{Definition: local}},
		{
			method: "/moby.filesync.v1.FileSend/DiffCopy", good: []proto.Message{&fstypes.Packet{Type: fstypes.PACKET_REQ}, &fstypes.Packet{Type: fstypes.PACKET_FIN}},
			solve: &controlpb.SolveRequest{Definition: made, Exporters: []*controlpb.Exporter{{Type: "local"}}},
		},
		{
			method: "/moby.filesync.v1.FileSend/DiffCopy", good: []proto.Message{&filesyncpb.BytesMessage{Data: []byte("x")}},
			solve: &controlpb.SolveRequest{Definition: made, Exporters: []*controlpb.Exporter{{Type: "tar"}}},
		},
		{method: content + "Read", good: []proto.Message{read}, solve: &controlpb.SolveRequest{Definition: layout}},
		{method: content + "Write", good: []proto.Message{written}, solve: toStore},
		{method: "/moby.exporter.v1.Exporter/FindExporters", good: []proto.Message{choice}, solve: chosen},
		{method: "/moby.exporter.v1.Exporter/FinalizeExport", good: []proto.Message{&exporterpb.FinalizeExportResponse{}}, solve: chosen, others: answers{"/moby.exporter.v1.Exporter/FindExporters": say(&exporterpb.FindExportersResponse{})}},
		{method: "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy", good: []proto.Message{allow}, solve: judged},
		{method: "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy", good: []proto.Message{ask}, solve: judged},
	}
}

// tokenAuthority returns the answers of a client that fetches tokens itself.
func tokenAuthority(tb testing.TB) answers {
	tb.Helper()
	public, private, err := sign.GenerateKey(rand.Reader)
	require.NoError(tb, err)
	return answers{
		"/moby.filesync.v1.Auth/GetTokenAuthority": say(&authpb.GetTokenAuthorityResponse{PublicKey: public[:]}),
		"/moby.filesync.v1.Auth/VerifyTokenAuthority": func(stream grpc.ServerStream) error {
			req := &authpb.VerifyTokenAuthorityRequest{}
			if err := stream.RecvMsg(req); err != nil {
				return err
			}
			return stream.SendMsg(&authpb.VerifyTokenAuthorityResponse{Signed: sign.Sign(nil, req.GetPayload(), private)})
		},
	}
}

// solveWith has the daemon build for a client that answers the calls of one method by fn. It tells
// whether the method was called.
func (c calling) solveWith(ctx context.Context, tb testing.TB, conn *grpc.ClientConn, fn answer) (called bool, err error) {
	tb.Helper()
	s, err := session.New("")
	require.NoError(tb, err)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first sync.Once
	all := answers{c.method: func(stream grpc.ServerStream) error {
		first.Do(func() { called = true })
		err := fn(stream)
		if errors.Is(err, errLeaves) {
			go s.Close()
			<-stream.Context().Done()
		}
		return err
	}}
	for method, other := range c.others {
		all[method] = other
	}
	s.Allow(all)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx, session.GRPCDialer(controlpb.NewControlClient(conn))) // its end is the daemon's business
	}()
	req := proto.CloneOf(c.solve)
	req.Ref, req.Session, req.Internal = library.NewRef(), s.ID(), true
	if req.SourcePolicySession != "" {
		req.SourcePolicySession = s.ID()
	}
	_, err = controlpb.NewControlClient(conn).Solve(ctx, req)
	require.NoError(tb, s.Close())
	<-ended
	return called, err
}

// patience is how long a build with an odd client may take.
const patience = 90 * time.Second

// asLongAsTheClient are answers of clients that have all the time they want: one that is silent may
// have to ask its user, a store may be in use, and what is uploaded may be of any size. Their builds
// end when the client has had enough.
func asLongAsTheClient(method, name string) bool {
	switch name {
	case "silence", "nothing more":
		return true
	case "without end":
		return strings.HasSuffix(method, "/Pull")
	case "error Unavailable":
		return strings.HasSuffix(method, "Content/Write")
	}
	return false
}

// Whatever a client answers when the daemon calls it: its build ends, and nobody else's.
func TestOddAnswersOfClientsHurtNobody(t *testing.T) {
	d := start(t, harness.DaemonOptions{Debug: true})
	conn := dial(t, d.Addr)
	requireAlive(t, d)
	goroutines := d.Goroutines(t)
	resetPeak(t, d.Pid())
	sent := 0
	for _, c := range callsOfTheDaemon(t) {
		good := c.good[0].ProtoReflect().Descriptor().Name()
		t.Run(fmt.Sprintf("%s %s", c.method, good), func(t *testing.T) {
			var eg errgroup.Group
			eg.SetLimit(4)
			var reached atomic.Int64
			try := func(name string, fn answer) error {
				limit := patience
				if asLongAsTheClient(c.method, name) {
					limit = 2 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				begun := time.Now()
				called, err := c.solveWith(ctx, t, conn, fn)
				if called {
					reached.Add(1)
				}
				switch took := time.Since(begun); {
				case took > limit+30*time.Second:
					return fmt.Errorf("%s: the build took %s: %w", name, took, err)
				case !asLongAsTheClient(c.method, name) && ctx.Err() != nil:
					return fmt.Errorf("%s: the build never ended: %w", name, err)
				case err == nil:
					return nil
				case strings.Contains(err.Error(), "panic"):
					return fmt.Errorf("%s: %w", name, err)
				}
				text := err.Error()
				if name == "garbage" && !strings.Contains(text, "the answer of the client to "+c.method+" is none") {
					return fmt.Errorf("whose garbage it was is not said: %w", err)
				}
				t.Logf("%s: %s", name, text[:min(len(text), 300)])
				return nil
			}
			var garbage answer
			for name, fn := range oddAnswers(c.good[0], c.good[1:]...) {
				sent++
				if name == "garbage" {
					garbage = fn
					continue
				}
				eg.Go(func() error { return try(name, fn) })
			}
			err := eg.Wait()
			if garbage != nil {
				// Builds at the same time share the step: another client would answer in its place.
				err = errors.Join(err, try("garbage", garbage))
			}
			require.NoError(t, err)
			require.Positive(t, reached.Load(), "the daemon never called")
		})
	}
	t.Logf("%d answers", sent)
	require.Less(t, peakMemory(t, d.Pid()), int64(daemonMemory))
	requireAlive(t, d)
	d.RequireIdle(t)
	requireGoroutines(t, d, goroutines, 20*time.Second)
}
