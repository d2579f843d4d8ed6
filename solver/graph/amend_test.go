package graph_test

import (
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/graph"
)

// replacing returns the options under which one source, or any if from is empty, is another.
func replacing(from, to string) graph.Opt {
	o := opt
	o.Amend = func(op *pb.Op, _ ocispec.Platform) (bool, error) {
		if op.GetSource() == nil || from != "" && op.GetSource().Identifier != from {
			return false, nil
		}
		op.GetSource().Identifier = to
		return true, nil
	}
	return o
}

func load(t *testing.T, def *pb.Definition, o graph.Opt) map[string]*graph.Vertex {
	t.Helper()
	g, err := graph.Load(def, o)
	require.NoError(t, err)
	byName := map[string]*graph.Vertex{}
	for _, v := range g.Vertices {
		byName[v.Name] = v
		for i, in := range v.Inputs {
			require.Equal(t, string(in.Vertex.Digest), v.Op.Inputs[i].Digest, v.Name)
		}
	}
	return byName
}

func TestAReplacedSourceChangesWhatDescendsFromIt(t *testing.T) {
	b := &builder{}
	a, other := b.add(source("docker-image://a")), b.add(source("docker-image://other"))
	one, two := b.add(run(a, "one")), b.add(run(other, "two"))
	join := run(one, "join")
	join.Inputs = append(join.Inputs, two)
	def := b.result(b.add(join))
	def.Metadata = map[string]*pb.OpMetadata{a.Digest: {Description: map[string]string{"llb.customname": "base"}, IgnoreCache: true}}

	before := load(t, def, opt)
	after := load(t, def, replacing("docker-image://a", "docker-image://b"))
	require.Equal(t, "docker-image://b", after["base"].Op.GetSource().Identifier)
	require.True(t, after["base"].IgnoreCache, "what was said of the op holds for the new one")
	for _, name := range []string{"base", "one", "join"} {
		require.NotEqual(t, before[name].Digest, after[name].Digest, name)
	}
	for _, name := range []string{"docker-image://other", "two"} {
		require.Equal(t, before[name].Digest, after[name].Digest, name)
	}
	// The name of the replaced source is the new one where nobody gave it a name.
	require.Contains(t, load(t, def, replacing("docker-image://other", "docker-image://c")), "docker-image://c")
}

func TestSourcesThatBecomeTheSameHaveOneDigest(t *testing.T) {
	b := &builder{}
	a, c := b.add(source("docker-image://a")), b.add(source("docker-image://c"))
	join := run(a, "join")
	join.Inputs = append(join.Inputs, c)
	g, err := graph.Load(b.result(b.add(join)), replacing("", "docker-image://b"))
	require.NoError(t, err)
	in := g.Root.Vertex.Inputs
	require.Equal(t, in[0].Vertex.Digest, in[1].Vertex.Digest)
}

func TestAReplacedSourceDecidesOnWhoMayShareIt(t *testing.T) {
	b := &builder{}
	def := b.result(b.add(run(b.add(source("docker-image://a")), "one")))
	require.Equal(t, graph.ShareAll, load(t, def, opt)["one"].Sharing)
	require.Equal(t, graph.ShareSession, load(t, def, replacing("docker-image://a", "local://b"))["one"].Sharing)
}

func TestARefusedOpEndsTheLoad(t *testing.T) {
	b := &builder{}
	def := b.result(b.add(run(b.add(source("docker-image://a")), "one")))
	o := opt
	refused := errors.New("refused")
	o.Amend = func(*pb.Op, ocispec.Platform) (bool, error) { return false, refused }
	_, err := graph.Load(def, o)
	require.ErrorIs(t, err, refused)
}
