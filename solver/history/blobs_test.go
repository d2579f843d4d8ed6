package history_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/codes"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// files returns the names of the files of long blobs.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blobs"))
	require.NoError(t, err)
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestABlobThatABuildHasAttachedOutlivesTheRecordThatHadIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, history.Config{Dir: dir})
	long := []byte(strings.Repeat("of an image that is built again and again ", 10_000))
	attach := func(ref string) (*history.Build, *controlpb.Descriptor) {
		b := s.Begin(&history.Record{Ref: ref})
		d, err := b.Attach("text/plain", long, nil)
		require.NoError(t, err)
		return b, d
	}
	finish := func(b *history.Build, d *controlpb.Descriptor) {
		told := feed.New("")
		told.Close()
		b.End(history.Outcome{Feed: told, Result: &controlpb.BuildResultInfo{Attestations: []*controlpb.Descriptor{d}}})
	}
	finish(attach("first"))
	require.NoError(t, s.Flush(t.Context()))
	second, d := attach("second")
	require.NoError(t, s.Delete(t.Context(), "first"))
	require.NoError(t, s.Flush(t.Context()))
	finish(second, d)
	require.NoError(t, s.Flush(t.Context()))
	require.Equal(t, long, blob(t, s, d))
	require.NoError(t, s.Close())
	s = open(t, history.Config{Dir: dir})
	require.Equal(t, []string{"second"}, refs(list(t, s, nil)))
	require.NoError(t, s.Delete(t.Context(), "second"))
	require.NoError(t, s.Flush(t.Context()))
	require.Empty(t, files(t, dir))
}

// A record goes while its trace is written, which is then nobody's.
func TestNoTraceStaysOfARecordThatWasDeletedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	var s *history.Store
	s = open(t, history.Config{Dir: dir, Spans: func(tracetest.SpanStubs) {
		require.NoError(t, s.Delete(t.Context(), "r"))
	}})
	told := feed.New("")
	b := s.Begin(&history.Record{Ref: "r"})
	id := b.TraceID()
	for range 300 {
		s.AddSpans(longSpan(id[:]))
	}
	told.Close()
	b.End(history.Outcome{Feed: told})
	require.NoError(t, s.Finalize(t.Context(), "r"))
	require.Empty(t, list(t, s, nil))
	require.NoError(t, s.Flush(t.Context()))
	require.Empty(t, files(t, dir))
}

// What records took is free when they are gone, also that of short blobs, and there is room for new ones.
func TestTheSpaceOfRecordsIsFreeWhenAllAreDeleted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, history.Config{Dir: dir})
	for round := range 2 {
		for i := range 100 {
			build(t, s, &history.Record{Ref: fmt.Sprint(i)}, strings.Repeat(rand.Text(), 4000), nil)
		}
		require.NoError(t, s.Flush(t.Context()))
		require.Greater(t, dbSize(t, dir), int64(8<<20))
		held := listen(t, s, &controlpb.BuildHistoryRequest{Ref: "7"})
		held.next(t, controlpb.BuildHistoryEventType_COMPLETE, "7")
		for i := range 100 {
			require.NoError(t, s.Delete(t.Context(), fmt.Sprint(i)))
		}
		held.next(t, controlpb.BuildHistoryEventType_DELETED, "7")
		require.NoError(t, s.Flush(t.Context()))
		require.Greater(t, dbSize(t, dir), int64(8<<20), "somebody listens to one")
		held.end(t)
		require.NoError(t, s.Flush(t.Context()))
		require.Less(t, dbSize(t, dir), int64(1<<20), round)
	}
	build(t, s, &history.Record{Ref: "last"}, "text", nil)
	require.NoError(t, s.Close())
	require.Equal(t, []string{"last"}, refs(list(t, open(t, history.Config{Dir: dir}), nil)))
}

func dbSize(t *testing.T, dir string) int64 {
	t.Helper()
	st, err := os.Stat(filepath.Join(dir, "history.db"))
	require.NoError(t, err)
	return st.Size()
}

// Blobs that are not what they were are told to be so, and no others.
func TestABlobThatIsDamagedIsAnErrorOfItsKind(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"half":    halve,
		"nothing": func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) },
		"noise":   func(t *testing.T, path string) { overwrite(t, path, 0) },
		"one bit": func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[len(data)/2] ^= 1
			require.NoError(t, os.WriteFile(path, data, 0o600))
		},
		"frames of 4 GiB": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("\xff", 1<<20)), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, history.Config{Dir: dir})
			build(t, s, &history.Record{Ref: "long"}, strings.Repeat("x", 1<<20), nil)
			build(t, s, &history.Record{Ref: "short"}, "hello", nil)
			build(t, s, &history.Record{Ref: "whole"}, rand.Text(), nil)
			short := digest.Digest(list(t, s, &controlpb.BuildHistoryRequest{Ref: "short"})[0].GetRecord().GetLogs().GetDigest())
			require.NoError(t, s.Close())

			damage(t, filepath.Join(dir, "blobs", files(t, dir)[0]))
			damageShort(t, dir, short, damage)

			s = open(t, history.Config{Dir: dir})
			require.Len(t, list(t, s, nil), 3)
			for _, ref := range []string{"long", "short"} {
				text, err := output(t, s, ref)
				require.ErrorIs(t, err, errdefs.ErrDataLoss)
				require.Equal(t, codes.DataLoss, status.Code(err))
				require.Empty(t, text)
				_, err = s.Content().Info(t.Context(), short)
				require.ErrorIs(t, err, errdefs.ErrDataLoss)
			}
			_, err := output(t, s, "whole")
			require.NoError(t, err)
			require.NoError(t, s.Delete(t.Context(), "long"))
			require.NoError(t, s.Delete(t.Context(), "short"))
			require.NoError(t, s.Flush(t.Context()))
			require.Empty(t, files(t, dir))
		})
	}
}

// damageShort damages a blob in the database of a history that is closed.
func damageShort(t *testing.T, dir string, dgst digest.Digest, damage func(*testing.T, string)) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "history.db"), 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("blobs"))
		path := filepath.Join(t.TempDir(), "blob")
		require.NoError(t, os.WriteFile(path, b.Get([]byte(dgst)), 0o600))
		damage(t, path)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		return b.Put([]byte(dgst), data)
	}))
	require.NoError(t, db.Close())
}
