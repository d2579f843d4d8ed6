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
	parents map[nestedStep]map[nestedStep]int
}

// nestedStep is a build op of a build. What it builds is in its input: in another build the same op
// may build something else.
type nestedStep struct {
	build  nester
	vertex digest.Digest
}

func newNesting() *nesting {
	return &nesting{parents: map[nestedStep]map[nestedStep]int{}}
}

// enter notes that a build op of a build builds g, until the function that is returned is called.
func (n *nesting) enter(build nester, vertex digest.Digest, g *graph.Graph) (leave func(), err error) {
	op := nestedStep{build, vertex}
	var children []nestedStep
	for _, v := range g.Vertices {
		if v.Op.GetBuild() != nil {
			children = append(children, nestedStep{build, v.Digest})
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
			n.parents[c] = map[nestedStep]int{}
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
func (n *nesting) above(op nestedStep) (all map[nestedStep]bool, depth int) {
	all = map[nestedStep]bool{op: true}
	for row := []nestedStep{op}; len(row) > 0; {
		var next []nestedStep
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
