package status_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	"github.com/openbuildkit/buildkit/api/status"
)

func TestCodeIsTheFirstThatSaysSomething(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want codes.Code
	}{
		"nil is OK":                             {nil, codes.OK},
		"a plain error is Unknown":              {errors.New("x"), codes.Unknown},
		"a wrapped kind of errdefs":             {fmt.Errorf("x: %w", errdefs.ErrNotFound), codes.NotFound},
		"a kind with a message":                 {fmt.Errorf("x: %w", errdefs.ErrInvalidArgument.WithMessage("m")), codes.InvalidArgument},
		"a conflict is a failed precondition":   {errdefs.ErrConflict, codes.FailedPrecondition},
		"a cancelled context":                   {fmt.Errorf("x: %w", context.Canceled), codes.Canceled},
		"a deadline":                            {context.DeadlineExceeded, codes.DeadlineExceeded},
		"a full disk":                           {fmt.Errorf("write: %w", syscall.ENOSPC), codes.ResourceExhausted},
		"no memory":                             {syscall.ENOMEM, codes.ResourceExhausted},
		"an I/O error":                          {syscall.EIO, codes.Internal},
		"another errno says nothing":            {syscall.EPERM, codes.Unknown},
		"joined: the first that says something": {errors.Join(errors.New("x"), grpcstatus.Error(codes.Unknown, "u"), errdefs.ErrNotFound, syscall.EIO), codes.NotFound},
		"a wrapped gRPC error":                  {fmt.Errorf("x: %w", grpcstatus.Error(codes.DataLoss, "lost")), codes.DataLoss},
		"an unknown gRPC error around a kind":   {fmt.Errorf("%w: %w", grpcstatus.Error(codes.Unknown, "u"), errdefs.ErrAborted), codes.Aborted},
		"the kind's own code":                   {&status.FrontendCapError{Name: "x"}, codes.Unimplemented},
		"an unknown job":                        {fmt.Errorf("a: %w", &status.UnknownJobError{ID: "j"}), codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			if got := status.Code(tc.err); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestTextPassesUnchanged(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"plain":               {errors.New("a: b"), "a: b"},
		"a raw gRPC error":    {grpcstatus.Error(codes.NotFound, "no such job x"), "no such job x"},
		"a wrapped raw error": {fmt.Errorf("failed: %w", grpcstatus.Error(codes.NotFound, "gone")), "failed: gone"},
		"empty":               {errors.New(""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			sent := status.ToGRPC(tc.err)
			if sent.Error() != tc.want {
				t.Errorf("sent %q, want %q", sent, tc.want)
			}
			again := status.FromGRPC(status.ToGRPC(status.FromGRPC(wire(t, sent))))
			if again.Error() != tc.want {
				t.Errorf("after two hops %q, want %q", again, tc.want)
			}
		})
	}
}

// wire sends err through the encoding that gRPC uses.
func wire(t *testing.T, err error) error {
	t.Helper()
	st, ok := grpcstatus.FromError(err)
	if !ok {
		t.Fatalf("no gRPC status in %T", err)
	}
	data, merr := proto.Marshal(st.Proto())
	if merr != nil {
		t.Fatal(merr)
	}
	out := st.Proto()
	if merr := proto.Unmarshal(data, out); merr != nil {
		t.Fatal(merr)
	}
	return grpcstatus.FromProto(out).Err()
}

// Names of files are bytes, and are in errors.
func TestAMessageThatIsNoTextIsSentWithItsDetails(t *testing.T) {
	st := status.Proto(&status.VertexError{Digest: "sha256:v", Err: errors.New("no file \xff")})
	if st.GetMessage() != "no file \uFFFD" || len(st.GetDetails()) != 1 {
		t.Fatalf("got %v", st)
	}
	if _, err := proto.Marshal(st); err != nil {
		t.Fatal(err)
	}
}

func TestEveryKindCrossesTwoHops(t *testing.T) {
	base := errdefs.ErrNotFound.WithMessage("boom")
	unknown := &anypb.Any{TypeUrl: "example.com/Other+json", Value: []byte(`{"a":1}`)}
	st, err := grpcstatus.New(codes.NotFound, "boom").WithDetails()
	if err != nil {
		t.Fatal(err)
	}
	withUnknown := st.Proto()
	withUnknown.Details = append(withUnknown.Details, unknown)

	inner := &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM scratch\n"), Language: "Dockerfile"}
	ranges := []*pb.Range{{Start: &pb.Position{Line: 1, Character: 2}, End: &pb.Position{Line: 1}}}
	solve := &errdefspb.Solve{
		InputIDs: []string{"a"}, MountIDs: []string{"", "m"},
		Op:          &pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Meta: &pb.Meta{Args: []string{"true"}}}}},
		Subject:     &errdefspb.Solve_File{File: &errdefspb.FileAction{Index: 7}},
		Description: map[string]string{"k": "v"},
	}
	e := errors.Join(grpcstatus.FromProto(withUnknown).Err(), base)
	e = &status.ExitError{Code: 137, Err: e}
	e = &status.SolveError{Solve: solve, Err: e}
	e = status.WithSource(e, inner, ranges...)
	e = status.WithSource(e, &pb.SourceInfo{Filename: "outer"}, ranges...)
	e = status.WithVertex(e, "sha256:abc")
	e = status.WithFrontend(e, "dockerfile.v0", "src")
	e = &status.FrontendCapError{Name: "cap", Err: e}
	e = &status.SubrequestError{Name: "sub", Err: e}
	e = &status.CompatibilityFeatureError{Version: 20, Feature: "f", Err: e}
	e = &status.MaterialsIncompleteError{Incomplete: []*errdefspb.ProvenanceMaterialIncomplete{{Reason: "local_source"}}, Err: e}
	e = &status.DenyError{Messages: []*policypb.DenyMessage{{Message: "no"}}, Err: e}
	e = status.WithStack(e)

	got := e
	for range 2 {
		got = status.FromGRPC(wire(t, status.ToGRPC(got)))
	}

	if !errors.Is(got, errdefs.ErrNotFound) && status.Code(got) != codes.Unimplemented {
		t.Errorf("code %v", status.Code(got))
	}
	var exit *status.ExitError
	if !errors.As(got, &exit) || exit.Code != 137 {
		t.Errorf("exit: %v", exit)
	}
	var sv *status.SolveError
	if !errors.As(got, &sv) || !proto.Equal(sv.Solve, solve) {
		t.Errorf("solve: %v", sv)
	}
	var vtx *status.VertexError
	if !errors.As(got, &vtx) || vtx.Digest != "sha256:abc" {
		t.Errorf("vertex: %v", vtx)
	}
	var fe *status.FrontendError
	if !errors.As(got, &fe) || fe.Name != "dockerfile.v0" || fe.Source != "src" {
		t.Errorf("frontend: %v", fe)
	}
	var fc *status.FrontendCapError
	if !errors.As(got, &fc) || fc.Name != "cap" {
		t.Errorf("cap: %v", fc)
	}
	var sub *status.SubrequestError
	if !errors.As(got, &sub) || sub.Name != "sub" {
		t.Errorf("subrequest: %v", sub)
	}
	var cf *status.CompatibilityFeatureError
	if !errors.As(got, &cf) || cf.Version != 20 || cf.Feature != "f" {
		t.Errorf("compatibility: %v", cf)
	}
	var mi *status.MaterialsIncompleteError
	if !errors.As(got, &mi) || len(mi.Incomplete) != 1 || mi.Incomplete[0].Reason != "local_source" {
		t.Errorf("materials: %v", mi)
	}
	var deny *status.DenyError
	if !errors.As(got, &deny) || len(deny.Messages) != 1 || deny.Messages[0].Message != "no" {
		t.Errorf("deny: %v", deny)
	}
	want := []*errdefspb.Source{{Info: inner, Ranges: ranges}, {Info: &pb.SourceInfo{Filename: "outer"}, Ranges: ranges}}
	if d := cmp.Diff(want, status.Sources(got), protocmp.Transform()); d != "" {
		t.Error(d)
	}
	if stacks := status.Stacks(got); len(stacks) != 1 || !strings.Contains(stacks[0].Frames[0].Name, "TestEveryKindCrossesTwoHops") {
		t.Errorf("stacks: %v", stacks)
	}
	kept := 0
	for _, d := range status.Proto(got).Details {
		if proto.Equal(d, unknown) {
			kept++
		}
	}
	if kept != 1 {
		t.Errorf("unknown detail kept %d times", kept)
	}
}

func TestDetailsHaveTheSpellingOfTheWire(t *testing.T) {
	info := &pb.SourceInfo{Filename: "F", Data: []byte("a")}
	e := status.WithSource(errors.New("x"), info, &pb.Range{Start: &pb.Position{Line: 3}, End: &pb.Position{Line: 3}})
	e = &status.ExitError{Code: 3, Err: e}
	e = &status.SolveError{Solve: &errdefspb.Solve{InputIDs: []string{"i"}, Subject: &errdefspb.Solve_Cache{Cache: &errdefspb.ContentCache{Index: 5}}}, Err: e}
	var got []string
	for _, d := range status.Proto(e).Details {
		got = append(got, d.TypeUrl+" "+strings.ReplaceAll(string(d.Value), " ", ""))
	}
	want := []string{
		`github.com/moby/buildkit/errdefs.Source+json {"info":{"filename":"F","data":"YQ=="},"ranges":[{"start":{"line":3},"end":{"line":3}}]}`,
		`github.com/moby/buildkit/gatewayapi.ExitMessage+json {"Code":3}`,
		`github.com/moby/buildkit/errdefs.Solve+json {"inputIDs":["i"],"cache":{"index":"5"}}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestErrorsOfRegisteredLibrariesAreSent(t *testing.T) {
	e := fmt.Errorf("push: %w", remoteerrors.ErrUnexpectedStatus{Status: "500", StatusCode: 500})
	ds := status.Proto(e).Details
	if len(ds) != 1 || ds[0].TypeUrl != "github.com/containerd/containerd/v2/core/remotes/errors/ErrUnexpectedStatus" {
		t.Errorf("details %v", ds)
	}
}

type failing struct {
	grpc_health_v1.UnimplementedHealthServer
	err error
}

func (f failing) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return nil, f.err
}

func (f failing) Watch(*grpc_health_v1.HealthCheckRequest, grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	return f.err
}

func TestInterceptorsCarryKindsThroughARealConnection(t *testing.T) {
	lis := bufconn.Listen(1 << 16)
	srv := grpc.NewServer(grpc.UnaryInterceptor(status.UnaryServer), grpc.StreamInterceptor(status.StreamServer))
	grpc_health_v1.RegisterHealthServer(srv, failing{err: fmt.Errorf("solve: %w", &status.ExitError{Code: 2, Err: errdefs.ErrUnavailable.WithMessage("x")})})
	go func() { _ = srv.Serve(lis) }()
	defer srv.Stop()
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return lis.Dial() }),
		grpc.WithUnaryInterceptor(status.UnaryClient), grpc.WithStreamInterceptor(status.StreamClient))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	c := grpc_health_v1.NewHealthClient(cc)

	check := func(err error) {
		t.Helper()
		var exit *status.ExitError
		if !errors.As(err, &exit) || exit.Code != 2 || err.Error() != "solve: x" || !errdefs.IsUnavailable(err) {
			t.Errorf("got %v", err)
		}
	}
	_, err = c.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	check(err)
	w, err := c.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Recv()
	check(err)
}

func TestSnippets(t *testing.T) {
	file := &pb.SourceInfo{Filename: "dir/Dockerfile", Data: []byte("one\ntwo\nthree\nfour\nfive\nsix\nseven\n")}
	at := func(start, end int32) *pb.Range {
		return &pb.Range{Start: &pb.Position{Line: start}, End: &pb.Position{Line: end}}
	}
	for name, tc := range map[string]struct {
		ranges []*pb.Range
		want   string
	}{
		"a single line has two lines of context": {[]*pb.Range{at(4, 4)}, "dir/Dockerfile:4\n--------------------\n   2 |     two\n   3 |     three\n   4 | >>> four\n   5 |     five\n   6 |     six\n--------------------\n"},
		"several lines have one":                 {[]*pb.Range{at(3, 4)}, "dir/Dockerfile:3\n--------------------\n   2 |     two\n   3 | >>> three\n   4 | >>> four\n   5 |     five\n--------------------\n"},
		"the first line":                         {[]*pb.Range{at(1, 1)}, "dir/Dockerfile:1\n--------------------\n   1 | >>> one\n   2 |     two\n   3 |     three\n--------------------\n"},
		"an end before the start":                {[]*pb.Range{at(8, 0)}, "dir/Dockerfile:8\n--------------------\n   6 |     six\n   7 |     seven\n   8 | >>> \n--------------------\n"},
		"separate ranges leave a gap unmarked":   {[]*pb.Range{at(4, 4), at(2, 2)}, "dir/Dockerfile:2\n--------------------\n   1 |     one\n   2 | >>> two\n   3 |     three\n   4 | >>> four\n   5 |     five\n--------------------\n"},
		"no range prints nothing":                {nil, ""},
		"lines outside of the file":              {[]*pb.Range{at(9, 9)}, ""},
		"line zero":                              {[]*pb.Range{at(0, 1)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := status.PrintSources(&b, status.WithSource(io.EOF, file, tc.ranges...)); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, b.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzFromProto(f *testing.F) {
	f.Add("github.com/moby/buildkit/errdefs.Source+json", []byte(`{"info":{"filename":"F","data":"YQ=="},"ranges":[{"start":{"line":-3}}, null]}`))
	f.Add("github.com/moby/buildkit/errdefs.Solve+json", []byte(`{"op":null}`))
	f.Add("github.com/moby/buildkit/stack.Stack+json", []byte(`{"frames":[null]}`))
	f.Fuzz(func(t *testing.T, url string, data []byte) {
		st := status.Proto(errors.New("x"))
		st.Details = []*anypb.Any{{TypeUrl: url, Value: data}}
		err := status.FromProto(st)
		if err.Error() != "x" {
			t.Errorf("text %q", err)
		}
		_ = status.PrintSources(io.Discard, err)
		_ = status.PrintStacks(io.Discard, err)
		if len(status.Proto(err).Details) != 1 {
			t.Error("detail lost or doubled")
		}
	})
}

// A user's mistake in a large file is shown like any other, though there is no room for the file.
func TestOfLargeSourceFilesOnlyWhatIsShownIsSent(t *testing.T) {
	place := func(size, line int) (*pb.SourceInfo, *pb.Range) {
		text := strings.Repeat("0123456789abcde\n", size/16)
		at := &pb.Position{Line: int32(line)}
		return &pb.SourceInfo{Filename: "Dockerfile", Data: []byte(text)}, &pb.Range{Start: at, End: at}
	}
	err := errors.New("mistake")
	for i := range 1000 {
		info, at := place(300<<10, 1000+i)
		err = status.WithSource(err, info, at)
	}
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"one large file": {
			func() error {
				info, at := place(12<<20, 500_000)
				return status.WithSource(errors.New("mistake"), info, at)
			}(),
			"Dockerfile:500000\n--------------------\n 499998 |     0123456789abcde\n 499999 |     0123456789abcde\n" +
				" 500000 | >>> 0123456789abcde\n 500001 |     0123456789abcde\n 500002 |     0123456789abcde\n--------------------\n",
		},
		"very many places": {err, "Dockerfile:1000\n"},
	} {
		t.Run(name, func(t *testing.T) {
			sent := wire(t, status.ToGRPC(tc.err))
			if size := proto.Size(grpcstatus.Convert(sent).Proto()); size > 6<<20 {
				t.Errorf("the status takes %d bytes", size)
			}
			var b strings.Builder
			if err := status.PrintSources(&b, status.FromGRPC(sent)); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(b.String(), tc.want) {
				t.Errorf("got %.500s", b.String())
			}
		})
	}
}

func TestPrintedSourcesShowNoCredentials(t *testing.T) {
	file := &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM scratch\nADD https://user:sesame@h/r.git /r\nADD ssh://git@h/r /s\n")}
	var b strings.Builder
	err := status.WithSource(io.EOF, file, &pb.Range{Start: &pb.Position{Line: 2}, End: &pb.Position{Line: 2}})
	if err := status.PrintSources(&b, err); err != nil {
		t.Fatal(err)
	}
	want := `Dockerfile:2
--------------------
   1 |     FROM scratch
   2 | >>> ADD https://xxxxx@h/r.git /r
   3 |     ADD ssh://git@h/r /s
   4 |     
--------------------
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}
