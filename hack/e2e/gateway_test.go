package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmetadata "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// mutations returns copies of msg with one field, at any depth, taken away or made odd.
func mutations(msg proto.Message) []proto.Message {
	var out []proto.Message
	var walk func(path []step, m protoreflect.Message)
	change := func(path []step, set func(m protoreflect.Message)) {
		c := proto.Clone(msg)
		set(follow(c.ProtoReflect(), path))
		out = append(out, c)
	}
	walk = func(path []step, m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			change(path, func(m protoreflect.Message) { m.Clear(fd) })
			for _, v := range oddValues(m, fd) {
				change(path, func(m protoreflect.Message) { m.Set(fd, v) })
			}
			if !m.Has(fd) {
				continue
			}
			switch {
			case fd.IsMap():
				if fd.MapValue().Message() != nil {
					m.Get(fd).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
						walk(append(path[:len(path):len(path)], step{field: fd, key: k}), v.Message())
						return true
					})
				}
			case fd.IsList():
				if fd.Message() != nil {
					for i := range m.Get(fd).List().Len() {
						walk(append(path[:len(path):len(path)], step{field: fd, index: i}), m.Get(fd).List().Get(i).Message())
					}
				}
			case fd.Message() != nil:
				walk(append(path[:len(path):len(path)], step{field: fd}), m.Get(fd).Message())
			}
		}
	}
	walk(nil, msg.ProtoReflect())
	return out
}

// step leads from a message to one in a field of it.
type step struct {
	field protoreflect.FieldDescriptor
	index int
	key   protoreflect.MapKey
}

func follow(m protoreflect.Message, path []step) protoreflect.Message {
	for _, s := range path {
		switch v := m.Mutable(s.field); {
		case s.field.IsMap():
			m = v.Map().Mutable(s.key).Message()
		case s.field.IsList():
			m = v.List().Get(s.index).Message()
		default:
			m = v.Message()
		}
	}
	return m
}

// oddValues returns values for a field that no sensible client sends.
func oddValues(m protoreflect.Message, fd protoreflect.FieldDescriptor) []protoreflect.Value {
	switch {
	case fd.IsMap():
		value := m.NewField(fd).Map()
		value.Set(protoreflect.ValueOfString("").MapKey(), value.NewValue())
		value.Set(protoreflect.ValueOfString("odd").MapKey(), value.NewValue())
		return []protoreflect.Value{protoreflect.ValueOfMap(value)}
	case fd.IsList():
		value := m.NewField(fd).List()
		value.Append(value.NewElement())
		value.Append(value.NewElement())
		return []protoreflect.Value{protoreflect.ValueOfList(value)}
	}
	var out []protoreflect.Value
	switch fd.Kind() {
	case protoreflect.MessageKind:
		out = append(out, m.NewField(fd))
	case protoreflect.StringKind:
		for _, s := range []string{"", "odd", "../../../../etc/passwd", "a\x00b", strings.Repeat("long", 1<<14)} {
			out = append(out, protoreflect.ValueOfString(s))
		}
	case protoreflect.BytesKind:
		out = append(out, protoreflect.ValueOfBytes(nil), protoreflect.ValueOfBytes([]byte("\xff\xff\xff\xff\x0f")))
	case protoreflect.BoolKind:
		out = append(out, protoreflect.ValueOfBool(!m.Get(fd).Bool()))
	case protoreflect.EnumKind:
		out = append(out, protoreflect.ValueOfEnum(-1), protoreflect.ValueOfEnum(math.MaxInt32))
	case protoreflect.Int32Kind:
		out = append(out, protoreflect.ValueOfInt32(-1), protoreflect.ValueOfInt32(math.MaxInt32))
	case protoreflect.Int64Kind:
		out = append(out, protoreflect.ValueOfInt64(math.MinInt64), protoreflect.ValueOfInt64(math.MaxInt64))
	case protoreflect.Uint32Kind:
		out = append(out, protoreflect.ValueOfUint32(math.MaxUint32))
	}
	return out
}

// bridge is the gateway API without the client library.
type bridge struct{ conn *grpc.ClientConn }

// of returns the API of a build.
func (b bridge) of(build string) gatewaypb.LLBBridgeClient { return gateway.BridgeOf(b.conn, build) }

// drive asks for a build without a session and runs fn as its frontend, which need not return a
// result.
func (b bridge) drive(tb testing.TB, build string, fn func(context.Context)) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = controlpb.NewControlClient(b.conn).Solve(ctx, &controlpb.SolveRequest{Ref: build}) // whatever comes of it
	}()
	defer func() {
		cancel()
		<-ended
	}()
	fn(ctx)
}

// call makes a call of the build ref with a message of its own make.
func (b bridge) call(ctx context.Context, tb testing.TB, ref string, method protoreflect.MethodDescriptor, msg proto.Message) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(grpcmetadata.AppendToOutgoingContext(ctx, "buildkit-controlapi-buildid", ref), clientTimeout)
	defer cancel()
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if method.IsStreamingClient() {
		return b.exec(ctx, name, msg)
	}
	var reply []byte
	data, err := proto.Marshal(msg)
	require.NoError(tb, err)
	return b.conn.Invoke(ctx, name, data, &reply, grpc.ForceCodec(rawCodec{}))
}

// exec sends a message to a stream that has a process, and ends that.
func (b bridge) exec(ctx context.Context, name string, msg proto.Message) error {
	stream, err := b.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
	if err != nil {
		return err
	}
	init := &gatewaypb.ExecMessage{ProcessID: "known", Input: &gatewaypb.ExecMessage_Init{Init: &gatewaypb.InitMessage{
		ContainerID: "known", Fds: []uint32{0}, Meta: &pb.Meta{Args: []string{"cat"}},
	}}}
	// The stream may have ended with an error, which receiving shows.
	_ = stream.SendMsg(init)
	_ = stream.SendMsg(msg)
	_ = stream.CloseSend()
	for {
		if err := stream.RecvMsg(&gatewaypb.ExecMessage{}); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// sensible returns a message for each method of the gateway, to be made odd.
func sensible(tb testing.TB, ref string) map[string][]proto.Message {
	tb.Helper()
	definition := marshal(tb, llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte("x"))))
	read := &gatewaypb.ReadFileRequest{Ref: ref, FilePath: "/f", Range: &gatewaypb.FileRange{Length: 1}}
	dir := &gatewaypb.ReadDirRequest{Ref: ref, DirPath: "/", IncludePattern: "*"}
	stat := &gatewaypb.StatFileRequest{Ref: ref, Path: "/f"}
	ofContainer := func(msg proto.Message) proto.Message {
		msg = proto.Clone(msg)
		m := msg.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName("Ref"), protoreflect.ValueOfString("known"))
		return msg
	}
	platform := &pb.Platform{OS: "linux", Architecture: "amd64", Variant: "v1", OSVersion: "1", OSFeatures: []string{"f"}}
	exec := func(in *gatewaypb.ExecMessage) proto.Message { in.ProcessID = "other"; return in }
	known := func(in *gatewaypb.ExecMessage) proto.Message { in.ProcessID = "known"; return in }
	result := &gatewaypb.Result{
		Result:   &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{Refs: map[string]*gatewaypb.Ref{"p": {Id: ref, Def: definition}}}},
		Metadata: map[string][]byte{"refs.platforms": []byte(`{"Platforms":[{"ID":"p"}]}`)},
		Attestations: map[string]*gatewaypb.Attestations{"p": {Attestation: []*gatewaypb.Attestation{{
			Ref: &gatewaypb.Ref{Id: ref}, Path: "/f", InTotoPredicateType: "t", Metadata: map[string][]byte{"k": []byte("v")},
			InTotoSubjects: []*gatewaypb.InTotoSubject{{Kind: 1, Digest: []string{digest.FromString("x").String()}, Name: "n"}},
		}}}},
	}
	return map[string][]proto.Message{
		"Ping":   {&gatewaypb.PingRequest{}},
		"Inputs": {&gatewaypb.InputsRequest{}},
		"Solve": {
			&gatewaypb.SolveRequest{
				Definition: definition, AllowResultReturn: true, AllowResultArrayRef: true, Evaluate: true,
				CacheImports: []*gatewaypb.CacheOptionsEntry{{Type: "local", Attrs: map[string]string{"src": "x"}}},
			},
			&gatewaypb.SolveRequest{
				Frontend: "dockerfile.v0", FrontendOpt: map[string]string{"filename": "x"},
				FrontendInputs: map[string]*pb.Definition{"context": definition, "dockerfile": definition},
			},
		},
		"ReadFile": {read}, "ReadDir": {dir}, "StatFile": {stat},
		"ReadFileContainer": {ofContainer(read)}, "ReadDirContainer": {ofContainer(dir)}, "StatFileContainer": {ofContainer(stat)},
		"Evaluate": {&gatewaypb.EvaluateRequest{Ref: ref}},
		"ResolveImageConfig": {&gatewaypb.ResolveImageConfigRequest{
			Ref: "busybox", Platform: platform, ResolveMode: "default", LogName: "l", ResolverType: 1,
			SessionID: "s", StoreID: "t",
		}},
		"ResolveSourceMeta": {&gatewaypb.ResolveSourceMetaRequest{
			Source:   &pb.SourceOp{Identifier: "docker-image://docker.io/library/busybox:latest", Attrs: map[string]string{"image.resolvemode": "default"}},
			Platform: platform, Image: &gatewaypb.ResolveSourceImageRequest{NoConfig: true, ResolveAttestations: []string{"x"}},
			Git: &gatewaypb.ResolveSourceGitRequest{}, HTTP: &gatewaypb.ResolveSourceHTTPRequest{ChecksumRequest: &gatewaypb.ChecksumRequest{Suffix: []byte("x")}},
		}},
		"Return": {
			&gatewaypb.ReturnRequest{Result: result},
			&gatewaypb.ReturnRequest{Error: status.Proto(&status.ExitError{Code: 3, Err: errors.New("x")})},
		},
		"Warn": {&gatewaypb.WarnRequest{
			Digest: digest.FromString("v").String(), Level: 1, Short: []byte("s"), Detail: [][]byte{[]byte("d")},
			Info:   &pb.SourceInfo{Filename: "f", Data: []byte("d"), Definition: definition},
			Ranges: []*pb.Range{{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}},
		}},
		"NewContainer": {&gatewaypb.NewContainerRequest{
			ContainerID: "new", Hostname: "h", Platform: platform,
			Constraints: &pb.WorkerConstraints{Filter: []string{"x"}}, ExtraHosts: []*pb.HostIP{{Host: "h", IP: "1.2.3.4"}},
			Mounts: []*pb.Mount{
				{Dest: "/", ResultID: ref},
				{Dest: "/c", MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "id"}},
				{Dest: "/t", MountType: pb.MountType_TMPFS, TmpfsOpt: &pb.TmpfsOpt{Size: 4096}},
				{Dest: "/s", MountType: pb.MountType_SECRET, SecretOpt: &pb.SecretOpt{ID: "id", Optional: true}},
				{Dest: "/a", MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{ID: "id", Optional: true}},
			},
		}},
		"ReleaseContainer": {&gatewaypb.ReleaseContainerRequest{ContainerID: "new"}},
		"ExecProcess": {
			exec(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Init{Init: &gatewaypb.InitMessage{
				ContainerID: "known", Fds: []uint32{0, 1},
				Meta:      &pb.Meta{Args: []string{"true"}, Env: []string{"A=b"}, Cwd: "/", User: "0", ProxyEnv: &pb.ProxyEnv{}, Ulimit: []*pb.Ulimit{{Name: "nofile"}}},
				Secretenv: []*pb.SecretEnv{{ID: "id", Name: "N", Optional: true}},
			}}}),
			known(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_File{File: &gatewaypb.FdMessage{Data: []byte("x")}}}),
			known(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Resize{Resize: &gatewaypb.ResizeMessage{Rows: 1, Cols: 1}}}),
			known(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Signal{Signal: &gatewaypb.SignalMessage{Name: "KILL"}}}),
			known(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Started{Started: &gatewaypb.StartedMessage{}}}),
			known(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Exit{Exit: &gatewaypb.ExitMessage{Code: 1}}}),
			known(&gatewaypb.ExecMessage{Input: &gatewaypb.ExecMessage_Done{Done: &gatewaypb.DoneMessage{}}}),
		},
	}
}

// oddMessages returns what is made of the sensible messages of a method, each once.
func oddMessages(tb testing.TB, ref string, method protoreflect.MethodDescriptor) []proto.Message {
	tb.Helper()
	good := sensible(tb, ref)[string(method.Name())]
	require.NotEmpty(tb, good, "no message for %s", method.Name())
	seen := map[string]bool{}
	var out []proto.Message
	for _, msg := range good {
		for _, m := range append(mutations(msg), msg) {
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				continue // text that is no UTF-8, which no client can send
			}
			if !seen[string(data)] {
				seen[string(data)] = true
				out = append(out, m)
			}
		}
	}
	return out
}

// Every field of every message that a frontend sends, at every depth, missing or odd: there is an
// answer, and the daemon is none the worse.
func TestOddMessagesOfAFrontendGetAnswers(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	b := bridge{dial(t, d.Addr)}
	resetPeak(t, d.Pid())
	sent := 0
	methods := gatewaypb.File_api_gateway_gateway_proto.Services().ByName("LLBBridge").Methods()
	for i := range methods.Len() {
		method := methods.Get(i)
		t.Run(string(method.Name()), func(t *testing.T) {
			next, all := 0, 1
			// Some answers end the build: the rest is sent to another one.
			for next < all {
				build := library.NewRef()
				b.drive(t, build, func(ctx context.Context) {
					ref := prepareOdd(ctx, t, b.of(build), strings.Contains(string(method.Name()), "Container") || method.IsStreamingClient())
					messages := oddMessages(t, ref, method)
					all = len(messages)
					if method.IsStreamingClient() {
						// Each runs a process: several at a time.
						var eg errgroup.Group
						eg.SetLimit(8)
						for _, msg := range messages {
							eg.Go(func() error { return b.odd(ctx, t, build, method, msg) })
						}
						next = all
						sent += all
						_ = eg.Wait() // each was looked at
						return
					}
					for next < all {
						msg := messages[next]
						next++
						sent++
						err := b.odd(ctx, t, build, method, msg)
						if m, ok := msg.(*gatewaypb.NewContainerRequest); ok && err == nil {
							_, err := b.of(build).ReleaseContainer(ctx, &gatewaypb.ReleaseContainerRequest{ContainerID: m.GetContainerID()})
							require.NoError(t, err)
						}
						if m := method.Name(); err == nil && (m == "Return" || m == "Solve" && msg.(*gatewaypb.SolveRequest).GetFinal()) {
							return
						}
					}
				})
			}
		})
	}
	t.Logf("%d messages", sent)
	require.Greater(t, sent, 500)
	require.Less(t, peakMemory(t, d.Pid()), int64(daemonMemory))
	requireAlive(t, d)
	d.RequireIdle(t)
}

// odd makes a call with a message of any kind, and fails the test unless it was answered.
func (b bridge) odd(ctx context.Context, tb testing.TB, build string, method protoreflect.MethodDescriptor, msg proto.Message) error {
	tb.Helper()
	err := b.call(ctx, tb, build, method, msg)
	if err != nil {
		require.NotContains(tb, []codes.Code{codes.Unavailable, codes.Internal, codes.DeadlineExceeded}, grpcstatus.Code(err), "%v: %v", msg, err)
		require.NotContains(tb, err.Error(), "panic", "%v", msg)
	}
	return err
}

// prepareOdd returns a reference of a tree and, where that is asked for, makes the container "known"
// of it, in which a process runs.
func prepareOdd(ctx context.Context, tb testing.TB, b gatewaypb.LLBBridgeClient, container bool) string {
	tb.Helper()
	solved, err := b.Solve(ctx, &gatewaypb.SolveRequest{Definition: marshal(tb, llb.Image("busybox"))})
	require.NoError(tb, err)
	if !container {
		return solved.GetRef()
	}
	_, err = b.NewContainer(ctx, &gatewaypb.NewContainerRequest{ContainerID: "known", Mounts: []*pb.Mount{{Dest: "/", ResultID: solved.GetRef()}}})
	require.NoError(tb, err)
	stream, err := b.ExecProcess(ctx)
	require.NoError(tb, err)
	require.NoError(tb, stream.Send(&gatewaypb.ExecMessage{ProcessID: "init", Input: &gatewaypb.ExecMessage_Init{Init: &gatewaypb.InitMessage{
		ContainerID: "known", Meta: &pb.Meta{Args: []string{"sleep", "1000"}},
	}}}))
	_, err = stream.Recv()
	require.NoError(tb, err)
	return solved.GetRef()
}

// A frontend that opens containers, starts processes and goes: everything ends with its build.
func TestWhatAFrontendLeavesRunningEndsWithTheBuild(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	client := connectTo(t, d)
	leak := func(ctx context.Context, c gateway.Client) {
		req := inBusybox(ctx, t, c, gateway.Mount{Dest: "/cache", MountType: pb.MountType_CACHE, CacheOpt: &pb.CacheOpt{ID: "leak"}}, gateway.Mount{Dest: "/empty"})
		for range 5 {
			ctr := open(ctx, t, c, req)
			_, out := script(context.WithoutCancel(ctx), t, ctr, "trap '' TERM HUP INT; touch /made; echo up; while :; do sleep 1; done")
			out.await(ctx, t, "up")
			_, out = script(context.WithoutCancel(ctx), t, ctr, "echo up; sleep 1000 & sleep 1000")
			out.await(ctx, t, "up")
		}
		open(ctx, t, c, req)
	}
	t.Run("that succeeds", func(t *testing.T) {
		drive(t, client, library.SolveOpt{}, leak)
		d.RequireIdle(t)
	})
	t.Run("that is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := client.Build(ctx, library.SolveOpt{}, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			leak(ctx, c)
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		d.RequireIdle(t)
	})
	d.MustBuildctl(t, "prune", "--all")
	require.NotContains(t, d.MustBuildctl(t, "du").Stdout, "true", "nothing is in use or left")
}

func TestWhatAFrontendMayHaveIsLimited(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	drive(t, connectTo(t, d), library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
		req := gateway.NewContainerRequest{Mounts: []gateway.Mount{{Dest: "/"}}}
		var all []gateway.Container
		for {
			ctr, err := c.NewContainer(ctx, req)
			if err != nil {
				require.Equal(t, codes.ResourceExhausted, status.Code(err), err)
				break
			}
			all = append(all, ctr)
			require.LessOrEqual(t, len(all), 1000)
		}
		require.Greater(t, len(all), 20)
		require.NoError(t, all[0].Release(ctx))
		open(ctx, t, c, req)

		var err error
		for range 20_000 {
			if err = c.Warn(ctx, digest.FromString("v"), "w", gateway.WarnOpt{}); err != nil {
				break
			}
		}
		require.EqualError(t, err, "a build has at most 10000 warnings of 67108864 bytes altogether")
		require.Equal(t, codes.ResourceExhausted, status.Code(err))

		for range 20_000 {
			if _, err = c.ResolveSourceMeta(ctx, &pb.SourceOp{Identifier: "local://context"}, gateway.ResolveOpt{}); err != nil {
				break
			}
		}
		require.ErrorContains(t, err, "the frontends of a build have at most 10000 sources resolved")
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
	})
	d.RequireIdle(t)
}

func TestAThousandCallsOfOneBuildAtOnce(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	drive(t, connectTo(t, d), library.SolveOpt{}, func(ctx context.Context, c gateway.Client) {
		root := treeOf(ctx, t, c, llb.Image("busybox"))
		ctr := open(ctx, t, c, inBusybox(ctx, t, c))
		calls := []func(i int) error{
			func(int) error { return root.Evaluate(ctx) },
			func(int) error { _, err := root.StatFile(ctx, "/bin/busybox"); return err },
			func(int) error { _, err := root.ReadDir(ctx, gateway.ReadDirRequest{Path: "/bin"}); return err },
			func(int) error {
				_, err := root.ReadFile(ctx, gateway.ReadRequest{Filename: "/bin/busybox", Range: &gateway.FileRange{Length: 4096}})
				return err
			},
			func(int) error { _, err := ctr.ReadDir(ctx, 0, gateway.ReadDirRequest{Path: "/"}); return err },
			func(int) error { _, err := c.Inputs(ctx); return err },
			func(i int) error {
				return c.Warn(ctx, digest.FromString("v"), fmt.Sprint(i), gateway.WarnOpt{})
			},
			func(i int) error {
				def, err := llb.Scratch().File(llb.Mkfile("/f", 0o644, []byte(fmt.Sprint(i)))).Marshal(ctx)
				if err != nil {
					return err
				}
				res, err := c.Solve(ctx, gateway.SolveRequest{Definition: def})
				if err != nil {
					return err
				}
				data, err := res.Ref.ReadFile(ctx, gateway.ReadRequest{Filename: "/f"})
				if err == nil && string(data) != fmt.Sprint(i) {
					err = fmt.Errorf("file of call %d has %q", i, data)
				}
				return err
			},
		}
		var eg errgroup.Group
		for i := range 1000 {
			eg.Go(func() error { return calls[i%len(calls)](i) })
		}
		require.NoError(t, eg.Wait())
		require.NoError(t, ctr.Release(ctx))
	})
	require.Less(t, peakMemory(t, d.Pid()), int64(daemonMemory))
	d.RequireIdle(t)
}

// More than a message may hold is refused before it is read.
func TestAResultOfAGibibyteIsRefused(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	conn := dial(t, d.Addr, grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(math.MaxInt)))
	build := library.NewRef()
	resetPeak(t, d.Pid())
	drive(t, connectTo(t, d), library.SolveOpt{Ref: build}, func(ctx context.Context, c gateway.Client) {
		ctx = grpcmetadata.AppendToOutgoingContext(ctx, "buildkit-controlapi-buildid", build)
		var reply []byte
		err := conn.Invoke(ctx, "/moby.buildkit.v1.frontend.LLBBridge/Return", make([]byte, 1<<30), &reply, grpc.ForceCodec(rawCodec{}))
		require.Equal(t, codes.ResourceExhausted, grpcstatus.Code(err), err)
	})
	require.Less(t, peakMemory(t, d.Pid()), int64(daemonMemory))
	requireAlive(t, d)
}

// A frontend that never returns holds up nobody, and its build ends with its client.
func TestAFrontendThatNeverReturnsEndsWithItsClient(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	client := connectTo(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	waits := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		_, err := client.Build(ctx, library.SolveOpt{}, "", func(ctx context.Context, _ gateway.Client) (*gateway.Result, error) {
			close(waits)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		ended <- err
	}()
	<-waits
	requireAlive(t, d)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	d.RequireIdle(t)
}
