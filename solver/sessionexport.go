package solver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
	sessionexporter "github.com/openbuildkit/buildkit/session/exporter"
)

// chosen tells whether the session of the client may choose exporters.
func (j *job) chosen() bool { return j.req.SessionExporter && j.req.Session != "" }

// findExporters adds the exporters that the client chooses now that the result is there.
func (j *job) findExporters(ctx context.Context, res *gateway.Result) error {
	if !j.chosen() {
		return nil
	}
	var refs []string
	err := j.withTrees(ctx, res, func(trees *exporter.Result) error {
		refs = treeIDs(trees)
		return nil
	})
	if err != nil {
		return err
	}
	found, err := sessionexporter.Find(ctx, j.solver.cfg.Sessions, j.req.Session, res.Metadata, refs)
	if err != nil {
		return fmt.Errorf("exporters that the client adds: %w", err)
	}
	for _, e := range found {
		if err := j.addOutput(Exporter(e)); err != nil {
			return err
		}
	}
	return nil
}

// finalizeExport tells the client what its exporters and the others answered.
func (j *job) finalizeExport(ctx context.Context, response map[string]string) error {
	if !j.chosen() {
		return nil
	}
	if err := sessionexporter.Finalize(ctx, j.solver.cfg.Sessions, j.req.Session, response); err != nil {
		return fmt.Errorf("end of the export: %w", err)
	}
	return nil
}

// treeIDs returns the ids of the trees of a result, those of several platforms in the order of theirs.
// Empty trees have none.
func treeIDs(res *exporter.Result) []string {
	var ids []string
	add := func(ref *cache.Ref) {
		if ref != nil {
			ids = append(ids, ref.ID())
		}
	}
	add(res.Ref)
	for _, platform := range slices.Sorted(maps.Keys(res.Refs)) {
		add(res.Refs[platform])
	}
	return ids
}
