package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session"
)

// definitionIn returns a tree with a file that holds the definition of s.
func definitionIn(t *testing.T, s llb.State, file string) llb.State {
	t.Helper()
	def, err := s.Marshal(t.Context())
	require.NoError(t, err)
	data, err := proto.Marshal(def)
	require.NoError(t, err)
	return llb.Scratch().File(llb.Mkfile("/"+file, 0o600, data))
}

func TestADefinitionThatAStepHasMadeIsBuilt(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	c, err := bkclient.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	out := t.TempDir()
	solve := func(s llb.State) error {
		def, err := s.Marshal(t.Context())
		require.NoError(t, err)
		_, err = c.Solve(t.Context(), def, bkclient.SolveOpt{Exports: []bkclient.Export{{Type: "local", OutputDir: out}}})
		return err
	}
	base := llb.Image("busybox")
	made := base.Run(llb.Shell("echo made >/out/made")).AddMount("/out", llb.Scratch()).GetMount("/out")
	const usual = "buildkit.llb.definition"

	require.NoError(t, solve(llb.Build(definitionIn(t, made, usual), "")))
	require.Equal(t, "made\n", read(t, out, "made"))
	require.NoError(t, solve(llb.Build(definitionIn(t, made, "dir"), "dir")))

	// The result is a tree like any other, and definitions can be nested.
	twice := llb.Build(definitionIn(t, llb.Build(definitionIn(t, made, usual), ""), "outer"), "/outer")
	require.NoError(t, solve(llb.Scratch().File(llb.Copy(twice, "/made", "/copied"))))
	require.Equal(t, "made\n", read(t, out, "copied"))

	deep := made
	for range 40 {
		deep = llb.Build(definitionIn(t, deep, usual), "")
	}
	for name, test := range map[string]struct {
		state llb.State
		err   string
	}{
		"without a file":      {llb.Build(llb.Scratch().File(llb.Mkdir("/x", 0o755)), ""), "failed to read the definition to build: open buildkit.llb.definition: no such file or directory"},
		"with another one":    {llb.Build(definitionIn(t, made, usual), "other"), "open other: no such file or directory"},
		"of nonsense":         {llb.Build(llb.Scratch().File(llb.Mkfile("/"+usual, 0o600, []byte("nonsense"))), ""), "failed to parse the definition to build"},
		"of nothing":          {llb.Build(llb.Scratch().File(llb.Mkfile("/"+usual, 0o600, nil)), ""), "invalid empty definition"},
		"that fails":          {llb.Build(definitionIn(t, base.Run(llb.Shell("exit 4")).Root(), usual), ""), "exit code: 4"},
		"that wants too much": {llb.Build(definitionIn(t, base.Run(llb.Shell("true"), llb.Network(pb.NetMode_HOST)).Root(), usual), ""), "network.host is not allowed"},
		"nested too deep":     {deep, fmt.Sprintf("definitions are nested more than %d times", 32)},
		"outside of it":       {llb.Build(llb.Scratch().File(llb.Symlink("/etc/passwd", "/"+usual)), ""), "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, solve(test.state), test.err) })
	}
	d.RequireIdle(t)
}

func TestPoliciesReachDefinitionsThatStepsHaveMade(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{})
	c := connectTo(t, d)
	const usual = "buildkit.llb.definition"
	deny := []*sourcepolicypb.Policy{{Rules: []*sourcepolicypb.Rule{{
		Action: sourcepolicypb.PolicyAction_DENY, Selector: &sourcepolicypb.Selector{Identifier: busyboxSource},
	}}}}
	denied := `source "` + busyboxSource + `" denied by policy`
	once := marshal(t, llb.Build(definitionIn(t, llb.Image("busybox"), usual), ""))
	twice := marshal(t, llb.Build(definitionIn(t, llb.Build(definitionIn(t, llb.Image("busybox"), usual), ""), usual), ""))
	err := driveOnce(t, c, bkclient.SolveOpt{}, func(ctx context.Context, g gateway.Client) {
		for range 2 {
			for _, definition := range []*pb.Definition{once, twice} {
				// What one request may have is no reason to give it to another.
				_, err := g.Solve(ctx, gateway.SolveRequest{Definition: definition, Evaluate: true})
				require.NoError(t, err)
				_, err = g.Solve(ctx, gateway.SolveRequest{Definition: definition, Evaluate: true, SourcePolicies: deny})
				require.ErrorContains(t, err, denied)
			}
		}
	})
	require.NoError(t, err)
	for range 2 {
		require.Contains(t, solve(t, d, twice, policyFile(t, denies("docker-image://*"))).wait(t).Stderr, denied, "it is in the cache")
	}
	d.RequireIdle(t)
}

// sayings is a listener that is told when a step says something.
type sayings chan string

// next returns what is said next, and fails the test if that takes too long.
func (s sayings) next(t *testing.T) string {
	t.Helper()
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case text := <-s:
		return text
	case <-timer.C:
		t.Fatal("nothing was said")
		return ""
	}
}

func (s sayings) Emit(b event.Batch) {
	for _, l := range b.Logs {
		select {
		case s <- string(l.Data):
		default:
		}
	}
}

func TestABuildGoesOnWithANestedDefinitionThatAnotherLeaves(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{Config: `insecure-entitlements = ["network.host"]`})
	c := connectTo(t, d)
	shared, err := session.New("")
	require.NoError(t, err)
	ran := make(chan error, 1)
	go func() { ran <- shared.Run(t.Context(), session.GRPCDialer(controlpb.NewControlClient(c.Conn()))) }()
	gate, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer gate.Close()
	port := gate.Addr().(*net.TCPAddr).Port
	made := llb.Image("busybox").Run(
		llb.Shell(fmt.Sprintf("echo waiting; nc 127.0.0.1 %d </dev/null && echo made >/out/made", port)),
		llb.Network(pb.NetMode_HOST),
	).AddMount("/out", llb.Scratch()).GetMount("/out")
	definition := marshal(t, llb.Build(definitionIn(t, made, "buildkit.llb.definition"), ""))
	build := func(ctx context.Context) (sayings, chan error) {
		said, done := make(sayings, 10), make(chan error, 1)
		go func() {
			_, err := c.Solve(ctx, definition, bkclient.SolveOpt{SharedSession: shared, Progress: said, AllowedEntitlements: []string{"network.host"}})
			done <- err
		}()
		return said, done
	}
	ctx, leave := context.WithCancel(t.Context())
	said, first := build(ctx)
	require.Equal(t, "waiting\n", said.next(t))
	said, second := build(t.Context())
	require.Equal(t, "waiting\n", said.next(t), "the other build is told what the step does, too")
	leave()
	require.ErrorIs(t, <-first, context.Canceled)
	conn, err := gate.Accept()
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.NoError(t, <-second)
	require.NoError(t, shared.Close())
	<-ran
	require.Empty(t, said, "the step was not begun again")
	d.RequireIdle(t)
}

func TestWhatWasMadeByANestedDefinitionAndIsLostIsMadeAgain(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{})
	base := llb.Image("busybox")
	made := base.Run(llb.Shell("echo made >/out/made")).AddMount("/out", llb.Scratch()).GetMount("/out")
	nested := llb.Build(definitionIn(t, llb.Build(definitionIn(t, made, "inner"), "inner"), "outer"), "outer")
	requireSolved(t, solve(t, d, marshal(t, nested)))
	lost, err := filepath.Glob(filepath.Join(d.Root, "*/cache/snapshots/overlayfs/snapshots/*/fs/made"))
	require.NoError(t, err)
	require.Len(t, lost, 1)
	require.NoError(t, os.RemoveAll(filepath.Dir(filepath.Dir(lost[0]))))
	out := t.TempDir()
	requireSolved(t, solve(t, d, marshal(t, llb.Scratch().File(llb.Copy(nested, "/made", "/copied"))), toLocal(out)))
	require.Equal(t, "made\n", read(t, out, "copied"))
	d.RequireIdle(t)
}
