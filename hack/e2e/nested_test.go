package e2e_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
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
