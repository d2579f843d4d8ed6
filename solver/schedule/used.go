package schedule

import (
	"slices"

	"github.com/openbuildkit/buildkit/solver/graph"
)

// Used is a vertex that something was made of.
type Used struct {
	Vertex *graph.Vertex
	// Pin is what a source was resolved to.
	Pin string
	// Results are the ids of what is known to be each output, as of the result's ID; the one that
	// this build has alone, if it has one.
	Results [][]string
	// Note is what the op told of its run with Env.Note; nil if it did not run.
	Note any
}

// Used returns the vertices that edges of the Job are made of, whether they ran or were found in the
// cache, inputs before those who use them. Those that nobody needed to look at are left out.
func (j *Job) Used(edges []Edge) []Used {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	var all []Used
	type visit struct {
		n    *node
		next int
	}
	seen := map[*node]bool{}
	for _, e := range edges {
		if e.node == nil || seen[e.node] {
			continue
		}
		seen[e.node] = true
		stack := []visit{{e.node, 0}}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.next == len(top.n.inputs) {
				if top.n.identity != nil {
					all = append(all, j.s.used(top.n))
				}
				stack = stack[:len(stack)-1]
				continue
			}
			in := top.n.inputs[top.next].node
			top.next++
			if !seen[in] {
				seen[in] = true
				stack = append(stack, visit{in, 0})
			}
		}
	}
	return all
}

func (s *Scheduler) used(n *node) Used {
	u := Used{Vertex: n.vertex, Pin: n.identity.Pin, Results: make([][]string, len(n.outputs)), Note: n.env.noted()}
	for i, o := range n.outputs {
		if o.result != nil {
			u.Results[i] = []string{o.result.ID()}
			continue
		}
		for _, k := range o.keys {
			for _, r := range s.keys.Results(k) {
				if !slices.Contains(u.Results[i], r.ID) {
					u.Results[i] = append(u.Results[i], r.ID)
				}
			}
		}
	}
	return u
}
