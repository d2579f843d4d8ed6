package gateway_test

import (
	"context"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/gateway"
)

// unary decodes a message and makes the call, as gRPC does.
func unary[Req any, PReq interface {
	*Req
	proto.Message
}, Resp any](method func(*gateway.Server, context.Context, PReq) (*Resp, error)) func(context.Context, *gateway.Server, []byte) error {
	return func(ctx context.Context, s *gateway.Server, data []byte) error {
		req := PReq(new(Req))
		if err := proto.Unmarshal(data, req); err != nil {
			return err
		}
		_, err := method(s, ctx, req)
		return err
	}
}

// messages is a stream of one message after that which starts the process p.
type messages struct {
	grpc.ServerStream
	ctx  context.Context
	left []*gatewaypb.ExecMessage
}

func (m *messages) Context() context.Context          { return m.ctx }
func (m *messages) Send(*gatewaypb.ExecMessage) error { return nil }

func (m *messages) Recv() (*gatewaypb.ExecMessage, error) {
	if len(m.left) == 0 {
		return nil, io.EOF
	}
	msg := m.left[0]
	m.left = m.left[1:]
	return msg, nil
}

func execProcess(ctx context.Context, s *gateway.Server, data []byte) error {
	msg := &gatewaypb.ExecMessage{}
	if err := proto.Unmarshal(data, msg); err != nil {
		return err
	}
	return s.ExecProcess(&messages{ctx: ctx, left: []*gatewaypb.ExecMessage{process("p", command("cat")), msg}})
}

var calls = []func(context.Context, *gateway.Server, []byte) error{
	unary((*gateway.Server).Ping),
	unary((*gateway.Server).Solve),
	unary((*gateway.Server).Evaluate),
	unary((*gateway.Server).Inputs),
	unary((*gateway.Server).Warn),
	unary((*gateway.Server).Return),
	unary((*gateway.Server).ReadFile),
	unary((*gateway.Server).ReadDir),
	unary((*gateway.Server).StatFile),
	unary((*gateway.Server).ReadFileContainer),
	unary((*gateway.Server).ReadDirContainer),
	unary((*gateway.Server).StatFileContainer),
	unary((*gateway.Server).ResolveImageConfig),
	unary((*gateway.Server).ResolveSourceMeta),
	unary((*gateway.Server).NewContainer),
	unary((*gateway.Server).ReleaseContainer),
	execProcess,
}

// Whatever a frontend sends, there is an answer: an error or a response, and nothing is left
// running.
func FuzzRequests(f *testing.F) {
	seed := func(call int, msg proto.Message) {
		data, err := proto.Marshal(msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(call, data)
	}
	seed(1, &gatewaypb.SolveRequest{Definition: &pb.Definition{Def: [][]byte{{1}}}, AllowResultReturn: true})
	seed(1, &gatewaypb.SolveRequest{Final: true, ExporterAttr: []byte(`{"k":"dg=="}`)})
	seed(4, &gatewaypb.WarnRequest{Digest: "sha256:x", Ranges: []*pb.Range{{}}})
	seed(5, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{
		Result:       &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{Refs: map[string]*gatewaypb.Ref{"p": {Id: "x"}}}},
		Attestations: map[string]*gatewaypb.Attestations{"p": {Attestation: []*gatewaypb.Attestation{{Path: "f"}}}},
	}})
	seed(9, &gatewaypb.ReadFileRequest{Ref: "c", FilePath: "/f", Range: &gatewaypb.FileRange{Offset: 1}})
	seed(12, &gatewaypb.ResolveImageConfigRequest{Ref: "alpine", Platform: &pb.Platform{OS: "linux"}})
	seed(13, &gatewaypb.ResolveSourceMetaRequest{Source: &pb.SourceOp{Identifier: "docker-image://alpine"}})
	seed(14, &gatewaypb.NewContainerRequest{ContainerID: "d", Mounts: []*pb.Mount{{Dest: "/", ResultID: "x"}}})
	seed(16, process("p", &gatewaypb.FdMessage{Data: []byte("x"), EOF: true}))
	seed(16, process("q", command("cat")))
	seed(16, process("p", &gatewaypb.SignalMessage{Name: "KILL"}))
	f.Fuzz(func(t *testing.T, call int, data []byte) {
		if call < 0 || call >= len(calls) {
			return
		}
		ctr := newFakeContainer(programs)
		bridge := solved(&client.Result{Ref: &fakeRef{file: "a"}})
		bridge.meta = &client.SourceMeta{Image: &client.ImageMeta{}}
		bridge.container = func(client.NewContainerRequest) (client.Container, error) { return ctr, nil }
		s := gateway.NewServer(bridge)
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := s.NewContainer(ctx, &gatewaypb.NewContainerRequest{ContainerID: "c", Mounts: []*pb.Mount{{Dest: "/"}}}); err != nil {
			t.Fatal(err)
		}
		if call == len(calls)-1 {
			// What sleeps is killed.
			defer context.AfterFunc(ctx, ctr.end)()
			go cancel()
		}
		_ = calls[call](ctx, s, data)
		cancel()
		ctr.all.Wait()
	})
}
