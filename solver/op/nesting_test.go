package op

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/graph"
)

// of returns a graph with build ops of these digests.
func of(digests ...string) *graph.Graph {
	g := &graph.Graph{Vertices: []*graph.Vertex{{Digest: "source", Op: &pb.Op{}}}}
	for _, d := range digests {
		g.Vertices = append(g.Vertices, &graph.Vertex{Digest: digest.Digest(d), Op: &pb.Op{Op: &pb.Op_Build{Build: &pb.BuildOp{}}}})
	}
	return g
}

type otherBuild struct{ nester }

func TestADefinitionDoesNotLeadToItself(t *testing.T) {
	const itself = "the definition to build contains the step that builds it"
	n := newNesting()
	enter := func(op string, g *graph.Graph) func() {
		t.Helper()
		leave, err := n.enter(nil, digest.Digest(op), g)
		require.NoError(t, err)
		return leave
	}
	_, err := n.enter(nil, "a", of("b", "a"))
	require.EqualError(t, err, itself)

	a := enter("a", of("b", "c"))
	b := enter("b", of("d"))
	again := enter("b", of("d"))
	for _, op := range []string{"b", "d"} {
		_, err = n.enter(nil, digest.Digest(op), of("a"))
		require.EqualError(t, err, itself, op)
	}
	enter("c", of("d", "e"))() // which is no circle
	b()
	_, err = n.enter(nil, "d", of("a"))
	require.EqualError(t, err, itself, "another build is still at it")
	leave, err := n.enter(otherBuild{}, "d", of("a"))
	require.NoError(t, err, "in another build the same step builds something else")
	leave()
	again()
	enter("d", of("b"))()
	a()
	require.Empty(t, n.parents)
}

func TestDefinitionsAreNestedSoDeepAndNoDeeper(t *testing.T) {
	n := newNesting()
	for i := range maxNesting {
		_, err := n.enter(nil, digest.Digest(fmt.Sprint(i)), of(fmt.Sprint(i+1)))
		require.NoError(t, err)
	}
	_, err := n.enter(nil, digest.Digest(fmt.Sprint(maxNesting)), of("more"))
	require.EqualError(t, err, "definitions are nested more than 32 times")
}
