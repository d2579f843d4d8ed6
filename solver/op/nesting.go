package op

import (
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/graph"
)

// maxNesting is how deep definitions may be made by definitions.
const maxNesting = 32

// nesting knows which build ops are being run by which others. One that leads to itself would wait
// for itself, one that always makes another would never end.
type nesting struct {
	mu sync.Mutex
	// parents are, for each build op of a definition that is being built, those that build it.
	parents map[digest.Digest]map[digest.Digest]int
}

func newNesting() *nesting {
	return &nesting{parents: map[digest.Digest]map[digest.Digest]int{}}
}

// enter notes that the op builds g, until the function that is returned is called.
func (n *nesting) enter(op digest.Digest, g *graph.Graph) (leave func(), err error) {
	var children []digest.Digest
	for _, v := range g.Vertices {
		if v.Op.GetBuild() != nil {
			children = append(children, v.Digest)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	above, depth := n.above(op)
	if depth >= maxNesting {
		return nil, status.New(codes.InvalidArgument, fmt.Sprintf("definitions are nested more than %d times", maxNesting))
	}
	for _, c := range children {
		if above[c] {
			return nil, status.New(codes.InvalidArgument, "the definition to build contains the step that builds it")
		}
	}
	for _, c := range children {
		if n.parents[c] == nil {
			n.parents[c] = map[digest.Digest]int{}
		}
		n.parents[c][op]++
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, c := range children {
			if n.parents[c][op]--; n.parents[c][op] == 0 {
				delete(n.parents[c], op)
			}
			if len(n.parents[c]) == 0 {
				delete(n.parents, c)
			}
		}
	}, nil
}

// above returns the op and all that lead to it, and how far away the farthest is.
func (n *nesting) above(op digest.Digest) (all map[digest.Digest]bool, depth int) {
	all = map[digest.Digest]bool{op: true}
	for row := []digest.Digest{op}; len(row) > 0; {
		var next []digest.Digest
		for _, d := range row {
			for p := range n.parents[d] {
				if !all[p] {
					all[p] = true
					next = append(next, p)
				}
			}
		}
		row = next
		if len(row) > 0 {
			depth++
		}
	}
	return all, depth
}
