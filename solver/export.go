package solver

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/solver/op"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// export hands the result to every exporter at once and returns what they answer; of answers to the
// same key that of the last in the request. An exporter that finds a tree lost makes the job build
// it anew.
func (j *job) export(ctx context.Context, res *gateway.Result, origins map[string]*origin) (map[string]string, error) {
	responses := make([]map[string]string, len(j.outputs))
	ready := newBarrier(len(j.outputs))
	eg, ctx := errgroup.WithContext(ctx)
	for i, inst := range j.outputs {
		eg.Go(func() (err error) {
			responses[i], err = j.exportOne(ctx, i, inst, res, origins, ready.party())
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	j.mu.Lock()
	j.answers = responses
	j.mu.Unlock()
	response := map[string]string{}
	for _, r := range responses {
		maps.Copy(response, r)
	}
	return response, nil
}

func (j *job) exportOne(ctx context.Context, id int, inst exporter.Instance, res *gateway.Result, origins map[string]*origin, others party) (resp map[string]string, err error) {
	scope := event.NewScope(j.feed, digest.FromString(fmt.Sprintf("%s-export-%d", j.req.Session, id)))
	done := scope.Start(inst.Name(), nil)
	if id == 0 {
		warn(scope, j.exportWarnings)
	}
	err = j.withTrees(ctx, res, func(trees *exporter.Result) (err error) {
		j.attest(origins, trees)
		resp, err = inst.Export(ctx, trees, exporter.Env{
			ID:       id,
			Sessions: j.sessions,
			Access:   cache.Access{Sessions: j.sessions, Blobs: j.sched},
			Scope:    scope,
			Platform: j.solver.platform(),
			Version:  j.solver.cfg.Version,
			Made:     j.keepImage,
			Others:   others.await,
		})
		return err
	})
	if err == nil {
		others.arrive()
	}
	return resp, done(err)
}

// withTrees calls fn with the trees of a result.
func (j *job) withTrees(ctx context.Context, res *gateway.Result, fn func(*exporter.Result) error) error {
	var edges []schedule.Edge
	add := func(ref gateway.Reference) error {
		mine, ok := ref.(*reference)
		if !ok || mine.job != j {
			return errForeignReference
		}
		edges = append(edges, mine.edge)
		return nil
	}
	err := errors.Join(
		res.EachRef(func(_ string, ref gateway.Reference) error { return add(ref) }),
		eachAttestation(res, func(_ string, a gateway.Attestation) error { return add(a.Ref) }),
	)
	if err != nil {
		return err
	}
	return j.sched.Use(ctx, edges, func(results []schedule.Result) error { return fn(exported(res, results)) })
}

// emptyTrees returns a tree for each platform of a result, the empty one.
func emptyTrees(res *gateway.Result) map[string]*cache.Ref {
	trees := make(map[string]*cache.Ref, len(res.Refs))
	for id := range res.Refs {
		trees[id] = nil
	}
	return trees
}

// exported returns a result as exporters know it, of trees in the order in which withTrees asks for
// them.
func exported(res *gateway.Result, results []schedule.Result) *exporter.Result {
	next := func() *cache.Ref {
		tree := op.Ref(results[0])
		results = results[1:]
		return tree
	}
	out := &exporter.Result{Metadata: res.Metadata}
	if res.Refs != nil {
		out.Refs = emptyTrees(res)
	}
	_ = res.EachRef(func(id string, _ gateway.Reference) error {
		if id == "" && res.Ref != nil {
			out.Ref = next()
		} else {
			out.Refs[id] = next()
		}
		return nil
	})
	_ = eachAttestation(res, func(id string, a gateway.Attestation) error {
		if out.Attestations == nil {
			out.Attestations = map[string][]exporter.Attestation{}
		}
		out.Attestations[id] = append(out.Attestations[id], exportedAttestation(a, next()))
		return nil
	})
	return out
}
