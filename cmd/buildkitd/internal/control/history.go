package control

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// History holds the records of builds; *history.Store is one.
type History interface {
	Listen(ctx context.Context, req *controlpb.BuildHistoryRequest, send func(*controlpb.BuildHistoryEvent) error) error
	Pin(ctx context.Context, ref string, pinned bool) error
	Delete(ctx context.Context, ref string) error
	// Finalize returns when nothing is added to a record any more.
	Finalize(ctx context.Context, ref string) error
	Content() content.InfoReaderProvider
}

// ListenBuildHistory tells of builds that run and that have run, and of what happens to them.
func (c *Controller) ListenBuildHistory(req *controlpb.BuildHistoryRequest, stream controlpb.Control_ListenBuildHistoryServer) error {
	if err := sendTimestamp(stream); err != nil {
		return err
	}
	return c.cfg.History.Listen(stream.Context(), req, stream.Send)
}

// UpdateBuildHistory deletes, completes or pins a record.
func (c *Controller) UpdateBuildHistory(ctx context.Context, req *controlpb.UpdateBuildHistoryRequest) (*controlpb.UpdateBuildHistoryResponse, error) {
	var err error
	switch {
	case req.GetDelete():
		err = c.cfg.History.Delete(ctx, req.GetRef())
	case req.GetFinalize():
		err = c.cfg.History.Finalize(ctx, req.GetRef())
	default:
		err = c.cfg.History.Pin(ctx, req.GetRef(), req.GetPinned())
	}
	return &controlpb.UpdateBuildHistoryResponse{}, err
}
