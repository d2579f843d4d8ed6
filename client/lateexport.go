package client

import (
	"context"
	"errors"

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
	// first is the index of the first that is chosen.
	first int
}

// FindExporters returns those that are chosen, and gets ready for what they send.
func (l *lateExports) FindExporters(ctx context.Context, metadata map[string][]byte, refs []string) ([]exporter.Request, error) {
	exports, err := l.choose(ctx, Finished{Metadata: metadata, Refs: refs})
	if err != nil {
		return nil, err
	}
	plan, err := planExports(exports)
	if err != nil {
		return nil, err
	}
	if plan.layout != "" {
		return nil, errors.New("an export to an OCI layout cannot be chosen when the build has been done")
	}
	if err := plan.makeDirs(); err != nil {
		return nil, err
	}
	for i, output := range plan.outputs {
		l.target.Add(l.first+i, output)
	}
	var out []exporter.Request
	for _, e := range encodeExports(exports) {
		out = append(out, exporter.Request{Type: e.GetType(), Attrs: e.GetAttrs()})
	}
	return out, nil
}

// FinalizeExport has nothing to do: the response is that of the build.
func (l *lateExports) FinalizeExport(context.Context, map[string]string) error { return nil }
