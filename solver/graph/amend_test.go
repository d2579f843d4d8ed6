package graph_test

import (
	"errors"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

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

func TestTheDefinitionIsThatOfWhatIsBuilt(t *testing.T) {
	b := &builder{}
	a, other := b.add(source("docker-image://a")), b.add(source("docker-image://other"))
	one := b.add(run(a, "one"))
	join := run(one, "join")
	join.Inputs = append(join.Inputs, other)
	top := b.add(join)
	unused := b.add(source("docker-image://unused"))
	def := b.result(top)
	said := func(text string) *pb.OpMetadata {
		return &pb.OpMetadata{Description: map[string]string{"llb.customname": text}}
	}
	def.Metadata = map[string]*pb.OpMetadata{a.Digest: said("a"), one.Digest: said("one"), other.Digest: said("other"), unused.Digest: said("unused")}
	def.Source = &pb.Source{
		Infos:     []*pb.SourceInfo{{Filename: "f"}},
		Locations: map[string]*pb.Locations{a.Digest: {Locations: []*pb.Location{{Ranges: []*pb.Range{{Start: &pb.Position{Line: 7}}}}}}, other.Digest: {}},
	}
	plain, err := graph.Load(def, opt)
	require.NoError(t, err)
	require.Same(t, def, plain.Definition)

	g, err := graph.Load(def, replacing("docker-image://a", "docker-image://b"))
	require.NoError(t, err)
	// As nothing is replaced any more it is loaded as it is.
	again, err := graph.Load(g.Definition, opt)
	require.NoError(t, err)
	require.Same(t, g.Definition, again.Definition)
	require.Len(t, again.Vertices, len(g.Vertices))
	for i, v := range g.Vertices {
		require.Equal(t, v.Digest, again.Vertices[i].Digest)
		require.Equal(t, v.Name, again.Vertices[i].Name)
		require.True(t, proto.Equal(v.Op, again.Vertices[i].Op))
		require.Len(t, again.Vertices[i].Sources, len(v.Sources))
	}
	require.Equal(t, g.Root.Vertex.Digest, again.Root.Vertex.Digest)
	base := load(t, g.Definition, opt)["a"].Digest.String()
	require.NotEqual(t, a.Digest, base)
	require.EqualValues(t, 7, g.Definition.GetSource().GetLocations()[base].GetLocations()[0].GetRanges()[0].GetStart().GetLine())
	require.Equal(t, "unused", g.Definition.GetMetadata()[unused.Digest].GetDescription()["llb.customname"])
	require.Len(t, def.GetDef(), len(g.Definition.GetDef()))
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
