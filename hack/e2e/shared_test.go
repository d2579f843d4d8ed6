package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	secretspb "github.com/openbuildkit/buildkit/api/session/secrets"
	sshpb "github.com/openbuildkit/buildkit/api/session/ssh"
	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session"
	sessioncontent "github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/filesync"
)

const (
	getSecret  = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
	checkAgent = "/moby.sshforward.v1.SSH/CheckAgent"
)

// sharer is a client of a step that another one wants, too.
type sharer struct {
	d *harness.Daemon
	// services are what its session offers; gateway has a callback of it solve the step.
	services session.Attachable
	gateway  bool
	joined   chan struct{}
	once     sync.Once
	leave    func()
}

// build has the step built. It closes joined once the daemon has told of the step.
func (s *sharer) build(ctx context.Context, def *pb.Definition) error {
	c, err := library.New(s.d.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	own, err := session.New("")
	if err != nil {
		return err
	}
	s.leave = func() { own.Close() }
	own.Allow(s.services)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = own.Run(ctx, session.GRPCDialer(controlpb.NewControlClient(c.Conn())))
	}()
	defer func() { own.Close(); <-ended }()
	opt := library.SolveOpt{SharedSession: own, Progress: event.SinkFunc(func(event.Batch) {
		s.once.Do(func() { close(s.joined) })
	})}
	if s.gateway {
		_, err = c.Build(ctx, opt, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			return g.Solve(ctx, gateway.SolveRequest{Definition: def, Evaluate: true})
		})
		return err
	}
	_, err = c.Solve(ctx, def, opt)
	return err
}

// gated answers for secrets: it tells of being asked for the gate and waits there, and leaves the rest
// to others.
type gated struct {
	asked, release chan struct{}
	once           sync.Once
}

func (g *gated) wait() {
	g.once.Do(func() { close(g.asked) })
	<-g.release
}

// secrets returns the answer of a client that has the gate, and answers like bad for other secrets.
func (g *gated) secrets(rest answer) answer {
	return func(stream grpc.ServerStream) error {
		req := &secretspb.GetSecretRequest{}
		if err := stream.RecvMsg(req); err != nil {
			return err
		}
		if req.GetID() != "gate" {
			return rest(stream)
		}
		g.wait()
		return say(&secretspb.GetSecretResponse{Data: []byte("open")})(stream)
	}
}

// A client that has not got what a shared step needs, or answers wrong, fails its own build and not
// that of another who has it, whoever came first and whenever the other comes.
func TestAClientFailsItsOwnBuildOnly(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	secret := func(o ...llb.SecretOption) func(string) (string, llb.RunOption) {
		return func(name string) (string, llb.RunOption) {
			return `test "$(cat /run/secrets/s)" = good && echo ` + name, llb.AddSecret("/run/secrets/s", append(o, llb.SecretID("s"))...)
		}
	}
	agent := func(name string) (string, llb.RunOption) {
		return `test -S $SSH_AUTH_SOCK && echo ` + name, llb.AddSSHSocket()
	}
	good := say(&secretspb.GetSecretResponse{Data: []byte("good")})
	fails := func(err error) answer { return func(grpc.ServerStream) error { return err } }
	for i, tc := range []struct {
		name   string
		needs  func(name string) (string, llb.RunOption)
		method string
		bad    answer
		// lost says that the first client has no session any more, otherwise it is served along.
		lost bool
	}{
		{"it has no such secret", secret(), getSecret, fails(grpcstatus.Error(codes.NotFound, "")), false},
		{"it refuses", secret(), getSecret, fails(grpcstatus.Error(codes.PermissionDenied, "refused")), false},
		{"it answers nonsense", secret(), getSecret, func(s grpc.ServerStream) error {
			return s.SendMsg(raw([]byte("\xff\xff\xff\xff\x0f garbage")))
		}, false},
		{"it leaves", secret(), getSecret, fails(errLeaves), true},
		{"it breaks down over an optional secret", secret(llb.SecretOptional()), getSecret, fails(errors.New("broken")), false},
		{"it has no agent", agent, checkAgent, fails(grpcstatus.Error(codes.NotFound, "unset ssh forward key default")), false},
		{"its agent is broken", agent, checkAgent, fails(grpcstatus.Error(codes.Internal, "broken")), false},
	} {
		for k, order := range []string{"the other comes in between", "the other waits already", "the other came first", "through the gateway"} {
			t.Run(tc.name+", "+order, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
				defer cancel()
				between := order == "the other comes in between"
				g := &gated{asked: make(chan struct{}), release: make(chan struct{})}
				run, option := tc.needs(fmt.Sprint(i, k))
				base := llb.Image("busybox")
				if !between {
					base = base.Run(llb.Shell(fmt.Sprint("echo gate ", i, k)), llb.AddSecret("/run/secrets/gate", llb.SecretID("gate"))).Root()
				}
				def := marshal(t, base.Run(llb.Shell(run), option).Root())
				through := order == "through the gateway"
				a, b := &sharer{d: d, gateway: through, joined: make(chan struct{})}, &sharer{d: d, gateway: through, joined: make(chan struct{})}
				bad := func(stream grpc.ServerStream) error {
					if between {
						g.wait()
					}
					err := tc.bad(stream)
					if errors.Is(err, errLeaves) {
						go a.leave()
						<-stream.Context().Done()
					}
					return err
				}
				worse := answers{getSecret: g.secrets(good), checkAgent: say(&sshpb.CheckAgentResponse{})}
				if worse[tc.method] = bad; tc.method == getSecret {
					worse[getSecret] = g.secrets(bad)
				}
				a.services = worse
				b.services = answers{getSecret: g.secrets(good), checkAgent: say(&sshpb.CheckAgentResponse{})}
				aDone, bDone := make(chan error, 1), make(chan error, 1)
				first, second := func() { aDone <- a.build(ctx, def) }, func() { bDone <- b.build(ctx, def) }
				joined := b.joined
				if order == "the other came first" {
					first, second, joined = second, first, a.joined
				}
				go first()
				<-g.asked
				go second()
				<-joined
				close(g.release)
				require.NoError(t, <-bDone)
				if aErr := <-aDone; tc.lost && order != "the other came first" {
					require.ErrorContains(t, aErr, "session")
				} else {
					require.NoError(t, aErr)
				}
			})
		}
	}
}

// Everybody who has nothing to offer is told of the own client.
func TestClientsOfAStepAreToldOfTheirOwnClients(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	gate := llb.Image("busybox").Run(llb.Shell("true"), llb.AddSecret("/run/secrets/gate", llb.SecretID("gate")))
	def := marshal(t, gate.Run(llb.Shell("cat /run/secrets/s"), llb.AddSecret("/run/secrets/s", llb.SecretID("s"))).Root())
	g := &gated{asked: make(chan struct{}), release: make(chan struct{})}
	refuse := func(text string) answers {
		return answers{getSecret: g.secrets(func(grpc.ServerStream) error { return errors.New(text) })}
	}
	a := &sharer{d: d, services: refuse("the safe of ann is locked"), joined: make(chan struct{})}
	b := &sharer{d: d, services: refuse("bob is out"), joined: make(chan struct{})}
	aDone, bDone := make(chan error, 1), make(chan error, 1)
	go func() { aDone <- a.build(t.Context(), def) }()
	<-g.asked
	go func() { bDone <- b.build(t.Context(), def) }()
	<-b.joined
	close(g.release)
	aErr, bErr := <-aDone, <-bDone
	require.ErrorContains(t, aErr, "the safe of ann is locked")
	require.NotContains(t, aErr.Error(), "bob")
	require.ErrorContains(t, bErr, "bob is out")
	require.NotContains(t, bErr.Error(), "ann")
}

// Services that steps talk to on the side of the client may do what they like: they take a bounded part
// of the daemon's memory, and a step that fails by them says so.
func TestHostileAgentsAreBoundedAndNamed(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := t.TempDir()
	program(t, "./hack/e2e/testdata/dialer", "dialer", dir)
	files, err := filesync.NewFS(dir)
	require.NoError(t, err)
	build := func(dialed, answered int, forward answer) error {
		c, err := library.New(d.Addr)
		require.NoError(t, err)
		defer c.Close()
		step := llb.Image("busybox").Run(llb.Args("/in/dialer", fmt.Sprint(dialed), fmt.Sprint(answered)),
			llb.AddMount("/in", llb.Local("context"), llb.Readonly()), llb.AddSSHSocket())
		ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
		defer cancel()
		_, err = c.Solve(ctx, marshal(t, step.Root()), library.SolveOpt{
			LocalMounts: map[string]fsutil.FS{"context": files},
			Session: []session.Attachable{answers{
				checkAgent: say(&sshpb.CheckAgentResponse{}), "/moby.sshforward.v1.SSH/ForwardAgent": forward,
			}},
		})
		return err
	}
	const exit = "did not complete successfully: exit code: 3"
	err = build(1, 1, func(grpc.ServerStream) error { return errors.New("no card in the reader") })
	require.ErrorContains(t, err, exit+": ssh agent default of the client: no card in the reader")
	err = build(1, 1, func(s grpc.ServerStream) error { return s.SendMsg(&sshpb.BytesMessage{Data: make([]byte, 15<<20)}) })
	require.ErrorContains(t, err, exit+": ssh agent default of the client: the answer of the client to")

	resetPeak(t, d.Pid())
	before := peakMemory(t, d.Pid())
	err = build(300, 32, func(s grpc.ServerStream) error {
		for {
			if err := s.SendMsg(&sshpb.BytesMessage{Data: make([]byte, 1<<20-100)}); err != nil {
				return err
			}
		}
	})
	require.ErrorContains(t, err, exit)
	grown := peakMemory(t, d.Pid()) - before
	t.Logf("the daemon took %d MiB", grown>>20)
	require.Less(t, grown, int64(300<<20))
	requireAlive(t, d)
	d.RequireIdle(t)
}

// leavingStore is a layout of a client that goes in the middle of a layer.
type leavingStore struct {
	content.Store
	layer digest.Digest
	gate  *gated
	leave func()
}

func (s *leavingStore) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := s.Store.ReaderAt(ctx, desc)
	if err != nil || desc.Digest != s.layer {
		return r, err
	}
	s.gate.wait()
	return &leavingReader{ReaderAt: r, leave: s.leave, ctx: ctx}, nil
}

type leavingReader struct {
	content.ReaderAt
	leave func()
	ctx   context.Context
}

func (r *leavingReader) ReadAt(p []byte, at int64) (int, error) {
	if at > r.Size()/2 {
		go r.leave()
		<-r.ctx.Done()
		return 0, context.Cause(r.ctx)
	}
	return r.ReaderAt.ReadAt(p[:min(len(p), 64<<10)], at)
}

// A transfer that a client leaves goes on with the client of another build that waits for it.
func TestAClientThatLeavesInALayerIsReplaced(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	lay := filepath.Join(t.TempDir(), "lay")
	made := dockerfile(t, "FROM busybox", "RUN dd if=/dev/urandom of=/noise bs=1M count=8")
	d.Build(t, made, "--output=type=oci,tar=false,compression=uncompressed,force-compression=true,dest="+lay)
	requirePruned(t, d)
	var index ocispec.Index
	require.NoError(t, json.Unmarshal([]byte(read(t, lay, "index.json")), &index))
	var manifest ocispec.Manifest
	require.NoError(t, json.Unmarshal([]byte(read(t, lay, "blobs", "sha256", index.Manifests[0].Digest.Encoded())), &manifest))
	store, err := sessioncontent.NewLayout(lay)
	require.NoError(t, err)
	base := llb.OCILayout("store@"+index.Manifests[0].Digest.String(), llb.OCIStore("", "store"))
	def := marshal(t, base.Run(llb.Shell("test $(stat -c %s /noise) = 8388608")).Root())

	g := &gated{asked: make(chan struct{}), release: make(chan struct{})}
	a, b := &sharer{d: d, joined: make(chan struct{})}, &sharer{d: d, joined: make(chan struct{})}
	offer := func(s content.Store) session.Attachable {
		return sessioncontent.NewProvider(map[string]content.Store{"oci:store": s})
	}
	a.services = offer(&leavingStore{Store: store, layer: manifest.Layers[len(manifest.Layers)-1].Digest, gate: g, leave: func() { a.leave() }})
	b.services = offer(store)
	aDone, bDone := make(chan error, 1), make(chan error, 1)
	go func() { aDone <- a.build(t.Context(), def) }()
	<-g.asked
	go func() { bDone <- b.build(t.Context(), def) }()
	<-b.joined
	close(g.release)
	require.NoError(t, <-bDone)
	require.ErrorContains(t, <-aDone, "session")
}
