package client

import (
	"context"
	"errors"
	"io"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// ListenHistory calls each for events of builds that have run or run now, until ctx ends, each
// returns an error or, if req asks for an early exit, all is told.
func (c *Client) ListenHistory(ctx context.Context, req *controlpb.BuildHistoryRequest, each func(*controlpb.BuildHistoryEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.control.ListenBuildHistory(ctx, req)
	if err != nil {
		return callError("failed to listen to the build history", err)
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return callError("failed to listen to the build history", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
}
