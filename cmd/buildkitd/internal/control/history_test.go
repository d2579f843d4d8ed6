package control_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// serveBuild serves a daemon that has recorded a build that printed text.
func serveBuild(t *testing.T, ref, text string) *grpc.ClientConn {
	t.Helper()
	d := &daemon{}
	cc := serve(t, d)
	told := feed.New(t.TempDir())
	b := d.history.Begin(&history.Record{Ref: ref})
	event.NewScope(told, digest.FromString("v")).Log(event.Stdout, []byte(text))
	told.Close()
	b.End(history.Outcome{Feed: told})
	return cc
}

func events(t *testing.T, cc *grpc.ClientConn, req *controlpb.BuildHistoryRequest) ([]*controlpb.BuildHistoryEvent, error) {
	t.Helper()
	stream, err := controlpb.NewControlClient(cc).ListenBuildHistory(t.Context(), req)
	require.NoError(t, err)
	header, err := stream.Header()
	require.NoError(t, err)
	_, err = time.Parse(time.RFC3339Nano, header.Get("buildkit-current-timestamp")[0])
	require.NoError(t, err)
	var out []*controlpb.BuildHistoryEvent
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
}

// Clients ask for a build that does not exist to find out whether there is a history.
func TestTheProbeOfClientsFindsAHistory(t *testing.T) {
	got, err := events(t, serve(t, &daemon{}), &controlpb.BuildHistoryRequest{
		ActiveOnly: true, Ref: "buildx-test-history-api-feature", EarlyExit: true,
	})
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestRecordsAreListedReadAndChanged(t *testing.T) {
	cc := serveBuild(t, "r", "hello\n")
	c := controlpb.NewControlClient(cc)
	got, err := events(t, cc, &controlpb.BuildHistoryRequest{EarlyExit: true})
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, controlpb.BuildHistoryEventType_COMPLETE, got[0].GetType())
	logs := got[0].GetRecord().GetLogs()
	require.Equal(t, feed.MediaType, logs.GetMediaType())

	data, err := readBlob(t, cc, logs.GetDigest())
	require.NoError(t, err)
	require.Len(t, data, int(logs.GetSize()))
	require.Contains(t, string(data), "hello")

	_, err = c.UpdateBuildHistory(t.Context(), &controlpb.UpdateBuildHistoryRequest{Ref: "r", Pinned: true})
	require.NoError(t, err)
	_, err = c.UpdateBuildHistory(t.Context(), &controlpb.UpdateBuildHistoryRequest{Ref: "r", Finalize: true})
	require.NoError(t, err)
	_, err = c.UpdateBuildHistory(t.Context(), &controlpb.UpdateBuildHistoryRequest{Ref: "r", Delete: true})
	require.NoError(t, err)
	got, err = events(t, cc, &controlpb.BuildHistoryRequest{EarlyExit: true})
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestMistakesAboutRecordsAreNamed(t *testing.T) {
	cc := serve(t, &daemon{})
	c := controlpb.NewControlClient(cc)
	for _, req := range []*controlpb.UpdateBuildHistoryRequest{{Ref: "x"}, {Ref: "x", Delete: true}, {Ref: "x", Finalize: true}} {
		_, err := c.UpdateBuildHistory(t.Context(), req)
		require.EqualError(t, err, "failed to retrieve ref x: file does not exist")
		require.Equal(t, codes.NotFound, status.Code(err))
	}
	_, err := events(t, cc, &controlpb.BuildHistoryRequest{Limit: -1, EarlyExit: true})
	require.EqualError(t, err, "invalid limit -1")
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = events(t, cc, &controlpb.BuildHistoryRequest{Filter: []string{"status=="}, EarlyExit: true})
	require.ErrorContains(t, err, "status==")
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestContentCanOnlyBeRead(t *testing.T) {
	cc := serve(t, &daemon{})
	none := digest.FromString("none").String()
	_, err := readBlob(t, cc, none)
	require.EqualError(t, err, "content digest "+none+": not found")
	require.Equal(t, codes.NotFound, status.Code(err))
	_, err = readBlob(t, cc, "sha256:../../x")
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	c := contentapi.NewContentClient(cc)
	_, err = c.Delete(t.Context(), &contentapi.DeleteContentRequest{Digest: none})
	require.Equal(t, codes.Unimplemented, status.Code(err))
	_, err = c.Update(t.Context(), &contentapi.UpdateRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err))
	_, err = c.Abort(t.Context(), &contentapi.AbortRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err))
	list, err := c.List(t.Context(), &contentapi.ListContentRequest{})
	require.NoError(t, err)
	_, err = list.Recv()
	require.Equal(t, codes.Unimplemented, status.Code(err))
	w, err := c.Write(t.Context())
	require.NoError(t, err)
	_, err = w.Recv()
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func readBlob(t *testing.T, cc *grpc.ClientConn, dgst string) ([]byte, error) {
	t.Helper()
	stream, err := contentapi.NewContentClient(cc).Read(t.Context(), &contentapi.ReadContentRequest{Digest: dgst})
	require.NoError(t, err)
	var out bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		out.Write(part.GetData())
	}
}
