package client

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
)

// Status follows the progress of a build, from its beginning also if it has begun or ended
// already, and returns when the build has ended.
func (c *Client) Status(ctx context.Context, ref string, sink event.Sink) error {
	stream, err := c.control.Status(ctx, &controlpb.StatusRequest{Ref: ref})
	if err != nil {
		return callError("failed to get status", err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return callError("failed to receive status", err)
		}
		sink.Emit(DecodeStatus(resp))
	}
}

// DecodeStatus returns the records of a message.
func DecodeStatus(resp *controlpb.StatusResponse) event.Batch {
	var b event.Batch
	for _, v := range resp.GetVertexes() {
		out := event.Vertex{
			Digest:        digest.Digest(v.GetDigest()),
			Name:          v.GetName(),
			Started:       optionalTime(v.GetStarted()),
			Completed:     optionalTime(v.GetCompleted()),
			Cached:        v.GetCached(),
			Error:         v.GetError(),
			ProgressGroup: v.GetProgressGroup(),
		}
		for _, in := range v.GetInputs() {
			out.Inputs = append(out.Inputs, digest.Digest(in))
		}
		b.Vertices = append(b.Vertices, out)
	}
	for _, s := range resp.GetStatuses() {
		b.Statuses = append(b.Statuses, event.Status{
			ID:        s.GetID(),
			Vertex:    digest.Digest(s.GetVertex()),
			Name:      s.GetName(),
			Total:     s.GetTotal(),
			Current:   s.GetCurrent(),
			Timestamp: s.GetTimestamp().AsTime(),
			Started:   optionalTime(s.GetStarted()),
			Completed: optionalTime(s.GetCompleted()),
		})
	}
	for _, l := range resp.GetLogs() {
		b.Logs = append(b.Logs, event.Log{
			Vertex:    digest.Digest(l.GetVertex()),
			Stream:    int(l.GetStream()),
			Data:      l.GetMsg(),
			Timestamp: l.GetTimestamp().AsTime(),
		})
	}
	for _, w := range resp.GetWarnings() {
		b.Warnings = append(b.Warnings, event.Warning{
			Vertex: digest.Digest(w.GetVertex()),
			Level:  int(w.GetLevel()),
			Short:  w.GetShort(),
			Detail: w.GetDetail(),
			URL:    w.GetUrl(),
			Source: w.GetInfo(),
			Ranges: w.GetRanges(),
		})
	}
	return b
}

func optionalTime(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	out := t.AsTime()
	return &out
}
