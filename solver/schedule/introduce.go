package schedule

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/cache/blob"
)

// maxIntroductions is how many sources a Job asks for at once before it joins them.
const maxIntroductions = 8

// unknownTo returns the nodes which ask outside for what they stand for, and do so for the
// sessions of other Jobs only. What those may see is not for this Job until it has asked itself:
// one user's credentials serve nobody else. It is called under the scheduler's lock.
func (j *Job) unknownTo(nodes []*node) []*node {
	var unknown []*node
	for _, n := range nodes {
		n = j.s.nodes[n.id]
		if n == nil || n.op.Static() || j.introduced[n.id] {
			continue
		}
		if _, member := n.jobs[j]; member || n.knows(j.sessions) {
			continue
		}
		unknown = append(unknown, n)
	}
	return unknown
}

// knows reports whether a Job with the same sessions holds the node.
func (n *node) knows(sessions []string) bool {
	for other := range n.jobs {
		if slices.Equal(other.sessions, sessions) {
			return true
		}
	}
	return false
}

// introduce asks for the sources with the Job's own sessions. What is found is not used: the
// nodes have it, or will.
func (j *Job) introduce(ctx context.Context, nodes []*node) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(maxIntroductions)
	for _, n := range nodes {
		eg.Go(func() error {
			if err := j.ask(ctx, n); err != nil {
				return j.s.vertexError(n.vertex, phaseIdentify.prefix(), err)
			}
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	for _, n := range nodes {
		j.introduced[n.id] = true
	}
	return nil
}

// ask asks for what a source stands for, until one of the Job's sessions may or all were refused.
func (j *Job) ask(ctx context.Context, n *node) error {
	env := &Env{Vertex: n.vertex, Blobs: &blob.Sources{}, jobs: []*Job{j}}
	for {
		_, err := protect(ctx, func(ctx context.Context) (func(), error) {
			op, err := j.s.factory(n.vertex)
			if err != nil {
				return nil, err
			}
			_, err = op.Identify(ctx, env)
			return nil, err
		})
		if err == nil || ctx.Err() != nil || !OfRequester(err) {
			return err
		}
		if refused, again := env.blame(err, func(own error) error { return own }); len(refused) > 0 || !again {
			return err
		}
	}
}

// refusedBelow returns why the Job may not have what is made of a source that it was refused, even
// if another Job had it made. It is called under the scheduler's lock.
func (j *Job) refusedBelow(root *node) error {
	if len(j.refused) == 0 {
		return nil
	}
	seen := map[*node]bool{root: true}
	for stack := []*node{root}; len(stack) > 0; {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if err := j.refused[n]; err != nil {
			return err
		}
		for _, in := range n.inputs {
			if !seen[in.node] {
				seen[in.node] = true
				stack = append(stack, in.node)
			}
		}
	}
	return nil
}
