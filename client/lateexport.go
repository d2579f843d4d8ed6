package client

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/plugins/content/local"

	"github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/exporter"
	"github.com/openbuildkit/buildkit/session/filesync"
)

// Finished is what exporters can be chosen by.
type Finished struct {
	// Metadata is that of the result, as the frontend has set it.
	Metadata map[string][]byte
	// Refs are the ids of the trees of the result in the cache of the daemon.
	Refs []string
}

// lateExports chooses exporters when the build has been done.
type lateExports struct {
	choose func(context.Context, Finished) ([]Export, error)
	target *filesync.Target
	stores *content.Provider
	// requested are the exporters that the build was asked for from the beginning.
	requested *exportPlan
	// first is the index of the first that is chosen.
	first int
	// chosen are the others, once they are known.
	chosen *exportPlan
}

// FindExporters returns those that are chosen, and gets ready for what they send.
func (l *lateExports) FindExporters(ctx context.Context, metadata map[string][]byte, refs []string) ([]exporter.Request, error) {
	exports, err := l.choose(ctx, Finished{Metadata: metadata, Refs: refs})
	if err != nil {
		return nil, err
	}
	exports = layoutLast(exports)
	plan, err := planExports(exports)
	if err != nil {
		return nil, err
	}
	if err := l.prepare(plan); err != nil {
		return nil, err
	}
	l.chosen = plan
	for i, output := range plan.outputs {
		l.target.Add(l.first+i, output)
	}
	var out []exporter.Request
	for _, e := range encodeExports(exports) {
		out = append(out, exporter.Request{Type: e.GetType(), Attrs: e.GetAttrs()})
	}
	return out, nil
}

// prepare makes the directories and opens the layout of a plan.
func (l *lateExports) prepare(plan *exportPlan) error {
	if plan.layout != "" && l.requested.layout != "" {
		return errors.New("only one exporter can write an OCI layout: " + l.requested.layout + ", " + plan.layout)
	}
	if err := plan.makeDirs(); err != nil || plan.layout == "" {
		return err
	}
	store, err := local.NewStore(plan.layout)
	if err != nil {
		return err
	}
	l.stores.Add(exportStore, store)
	return nil
}

// FinalizeExport names what was written to a layout. Besides, the response is that of the build.
func (l *lateExports) FinalizeExport(_ context.Context, response map[string]string) error {
	if l.chosen == nil {
		return nil
	}
	return l.chosen.finish(response)
}
