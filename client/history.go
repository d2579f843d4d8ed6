package client

import (
	"context"
	"errors"
	"io"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"

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

// PinHistory has the record of a build stay whatever its age, or not.
func (c *Client) PinHistory(ctx context.Context, ref string, pinned bool) error {
	return c.updateHistory(ctx, &controlpb.UpdateBuildHistoryRequest{Ref: ref, Pinned: pinned})
}

// DeleteHistory deletes the record of a build.
func (c *Client) DeleteHistory(ctx context.Context, ref string) error {
	return c.updateHistory(ctx, &controlpb.UpdateBuildHistoryRequest{Ref: ref, Delete: true})
}

// FinalizeHistory returns when the record of a build is complete, with its trace.
func (c *Client) FinalizeHistory(ctx context.Context, ref string) error {
	return c.updateHistory(ctx, &controlpb.UpdateBuildHistoryRequest{Ref: ref, Finalize: true})
}

// updateHistory returns errors as they are: they name the build.
func (c *Client) updateHistory(ctx context.Context, req *controlpb.UpdateBuildHistoryRequest) error {
	_, err := c.control.UpdateBuildHistory(ctx, req)
	return err
}

// ReadBlob writes content of the daemon, such as what records of builds name, to w.
func (c *Client) ReadBlob(ctx context.Context, dgst digest.Digest, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := contentapi.NewContentClient(c.conn).Read(ctx, &contentapi.ReadContentRequest{Digest: dgst.String()})
	if err != nil {
		return err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(part.GetData()); err != nil {
			return err
		}
	}
}
