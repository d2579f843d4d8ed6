package history_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// open opens a history that is closed when the test ends.
func open(t *testing.T, cfg history.Config) *history.Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = 1000
	}
	if cfg.TraceGrace == 0 {
		cfg.TraceGrace = time.Hour
	}
	s := history.Open(t.Context(), cfg)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// build records a build that printed text and ended with err, and returns when the record is there.
func build(t *testing.T, s *history.Store, rec *history.Record, text string, err error) {
	t.Helper()
	told := feed.New(s.TapeDir())
	b := s.Begin(rec)
	require.NotNil(t, b)
	event.NewScope(told, digest.FromString("v")).Log(event.Stdout, []byte(text))
	told.Close()
	b.End(history.Outcome{Feed: told, Err: err})
	list(t, s, &controlpb.BuildHistoryRequest{Ref: rec.GetRef()})
}

// list returns what a client is told that does not stay.
func list(t *testing.T, s *history.Store, req *controlpb.BuildHistoryRequest) []*history.Event {
	t.Helper()
	if req == nil {
		req = &controlpb.BuildHistoryRequest{}
	}
	req.EarlyExit = true
	var out []*history.Event
	require.NoError(t, s.Listen(t.Context(), req, func(e *history.Event) error {
		out = append(out, e)
		return nil
	}))
	return out
}

func refs(events []*history.Event) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, e.GetRecord().GetRef())
	}
	return out
}

func output(t *testing.T, s *history.Store, ref string) (string, error) {
	t.Helper()
	var b strings.Builder
	err := s.Replay(t.Context(), ref, func(status []byte) error {
		var m controlpb.StatusResponse
		if err := proto.Unmarshal(status, &m); err != nil {
			return err
		}
		for _, l := range m.GetLogs() {
			b.Write(l.GetMsg())
		}
		return nil
	})
	return b.String(), err
}

func TestABuildIsActiveAndThenARecordThatOutlivesTheDaemon(t *testing.T) {
	dir := t.TempDir()
	s := open(t, history.Config{Dir: dir})
	long := strings.Repeat("0123456789abcdef", 1<<16)
	told := feed.New(s.TapeDir())
	b := s.Begin(&history.Record{Ref: "long", Frontend: "f", FrontendAttrs: map[string]string{"a": "b"}})
	require.Equal(t, controlpb.BuildHistoryEventType_STARTED, list(t, s, nil)[0].GetType())
	event.NewScope(told, "v").Log(event.Stdout, []byte(long))
	told.Close()
	b.End(history.Outcome{Feed: told, Response: map[string]string{"k": "v"}})
	build(t, s, &history.Record{Ref: "short"}, "hello", errors.New("failed"))

	check := func(s *history.Store) {
		events := list(t, s, nil)
		require.Equal(t, []string{"long", "short"}, refs(events))
		rec := events[0].GetRecord()
		require.Equal(t, controlpb.BuildHistoryEventType_COMPLETE, events[0].GetType())
		require.Equal(t, "f", rec.GetFrontend())
		require.Equal(t, map[string]string{"k": "v"}, rec.GetExporterResponse())
		require.NotNil(t, rec.GetCompletedAt())
		require.Nil(t, rec.GetError())
		require.Equal(t, "failed", events[1].GetRecord().GetError().GetMessage())
		text, err := output(t, s, "long")
		require.NoError(t, err)
		require.Equal(t, long, text)
		text, err = output(t, s, "short")
		require.NoError(t, err)
		require.Equal(t, "hello", text)
	}
	check(s)
	require.NoError(t, s.Close())
	check(open(t, history.Config{Dir: dir}))
}

func TestTheDetailsOfAnErrorAreABlob(t *testing.T) {
	s := open(t, history.Config{})
	err := status.WithSource(status.New(codes.InvalidArgument, "no luck"), &pb.SourceInfo{Filename: "Dockerfile"}, &pb.Range{})
	build(t, s, &history.Record{Ref: "r"}, "", err)
	rec := list(t, s, nil)[0].GetRecord()
	require.Equal(t, "no luck", rec.GetError().GetMessage())
	require.Empty(t, rec.GetError().GetDetails())
	require.Equal(t, "application/vnd.googeapis.google.rpc.status+proto", rec.GetExternalError().GetMediaType())
	data := blob(t, s, rec.GetExternalError())
	full := status.Proto(nil)
	require.NoError(t, proto.Unmarshal(data, full))
	var source *status.SourceError
	require.ErrorAs(t, status.FromProto(full), &source)
	require.Equal(t, "Dockerfile", source.Info.GetFilename())
}

func blob(t *testing.T, s *history.Store, d *controlpb.Descriptor) []byte {
	t.Helper()
	r, err := s.Content().ReaderAt(t.Context(), ocispec.Descriptor{Digest: digest.Digest(d.GetDigest())})
	require.NoError(t, err)
	defer r.Close()
	data, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	require.NoError(t, err)
	require.Len(t, data, int(d.GetSize()))
	require.Equal(t, d.GetDigest(), digest.FromBytes(data).String())
	return data
}

func TestWhatIsAttachedStaysAsLongAsARecordHasIt(t *testing.T) {
	s := open(t, history.Config{})
	for _, size := range []int{10, 1 << 20} {
		var d *controlpb.Descriptor
		data := []byte(strings.Repeat("x", size))
		for _, ref := range []string{"a", "b"} {
			told := feed.New("")
			b := s.Begin(&history.Record{Ref: ref})
			var err error
			d, err = b.Attach("application/vnd.in-toto+json", data, map[string]string{"k": "v"})
			require.NoError(t, err)
			told.Close()
			b.End(history.Outcome{Feed: told, Result: &controlpb.BuildResultInfo{Attestations: []*controlpb.Descriptor{d}}})
		}
		require.Equal(t, data, blob(t, s, d))
		require.NoError(t, s.Delete(t.Context(), "a"))
		require.NoError(t, s.Flush(t.Context()))
		require.Equal(t, data, blob(t, s, d))
		require.NoError(t, s.Delete(t.Context(), "b"))
		require.NoError(t, s.Flush(t.Context()))
		_, err := s.Content().Info(t.Context(), digest.Digest(d.GetDigest()))
		require.ErrorIs(t, err, errdefs.ErrNotFound)
	}
}

func TestAChangeIsANewGeneration(t *testing.T) {
	s := open(t, history.Config{})
	build(t, s, &history.Record{Ref: "r"}, "", nil)
	require.NoError(t, s.Pin(t.Context(), "r", true))
	rec := list(t, s, nil)[0].GetRecord()
	require.True(t, rec.GetPinned())
	require.EqualValues(t, 1, rec.GetGeneration())
	require.NoError(t, s.Pin(t.Context(), "r", false))
	require.EqualValues(t, 2, list(t, s, nil)[0].GetRecord().GetGeneration())
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	s := open(t, history.Config{})
	s.Begin(&history.Record{Ref: "active"})
	for _, ref := range []string{"none", "active", ""} {
		var missing *history.NotFoundError
		for _, err := range []error{s.Pin(t.Context(), ref, true), s.Delete(t.Context(), ref), s.Finalize(t.Context(), ref)} {
			require.ErrorAs(t, err, &missing)
			require.Equal(t, ref == "active", missing.Running)
		}
		_, err := output(t, s, ref)
		require.ErrorAs(t, err, &missing)
		require.Equal(t, ref, missing.Ref)
	}
	require.Empty(t, list(t, s, &controlpb.BuildHistoryRequest{Ref: "none"}))
	require.Nil(t, s.Begin(&history.Record{}))
	require.Nil(t, s.Begin(&history.Record{Ref: strings.Repeat("x", 1<<20)}))
}

// listener is a Listen that goes on.
type listener struct {
	events chan *history.Event
	done   chan error
	stop   context.CancelFunc
}

func listen(t *testing.T, s *history.Store, req *controlpb.BuildHistoryRequest) *listener {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &listener{events: make(chan *history.Event), done: make(chan error, 1), stop: stop}
	go func() {
		l.done <- s.Listen(ctx, req, func(e *history.Event) error {
			select {
			case l.events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return l
}

func (l *listener) next(t *testing.T, kind controlpb.BuildHistoryEventType, ref string) *history.Record {
	t.Helper()
	e := <-l.events
	require.Equal(t, kind, e.GetType())
	require.Equal(t, ref, e.GetRecord().GetRef())
	return e.GetRecord()
}

func (l *listener) end(t *testing.T) {
	t.Helper()
	l.stop()
	require.ErrorIs(t, <-l.done, context.Canceled)
}

func TestListenersAreToldWhatHappens(t *testing.T) {
	s := open(t, history.Config{})
	build(t, s, &history.Record{Ref: "old"}, "", nil)
	s.Begin(&history.Record{Ref: "running"})
	all := listen(t, s, &controlpb.BuildHistoryRequest{})
	all.next(t, controlpb.BuildHistoryEventType_STARTED, "running")
	all.next(t, controlpb.BuildHistoryEventType_COMPLETE, "old")
	active := listen(t, s, &controlpb.BuildHistoryRequest{ActiveOnly: true})
	active.next(t, controlpb.BuildHistoryEventType_STARTED, "running")
	other := listen(t, s, &controlpb.BuildHistoryRequest{Ref: "old"})
	other.next(t, controlpb.BuildHistoryEventType_COMPLETE, "old")

	build(t, s, &history.Record{Ref: "new"}, "", nil)
	require.NoError(t, s.Pin(t.Context(), "new", true))
	for _, l := range []*listener{all, active} {
		l.next(t, controlpb.BuildHistoryEventType_STARTED, "new")
		require.True(t, l.next(t, controlpb.BuildHistoryEventType_COMPLETE, "new").GetPinned(), "only the last state is told")
	}
	require.NoError(t, s.Delete(t.Context(), "new"))
	all.next(t, controlpb.BuildHistoryEventType_DELETED, "new")
	for _, l := range []*listener{all, active, other} {
		l.end(t)
	}
}

func TestAListenerKeepsTheBlobsOfItsBuild(t *testing.T) {
	dir := t.TempDir()
	s := open(t, history.Config{Dir: dir})
	build(t, s, &history.Record{Ref: "r"}, strings.Repeat("x", 1<<20), nil)
	l := listen(t, s, &controlpb.BuildHistoryRequest{Ref: "r"})
	logs := l.next(t, controlpb.BuildHistoryEventType_COMPLETE, "r").GetLogs()
	require.NoError(t, s.Delete(t.Context(), "r"))
	l.next(t, controlpb.BuildHistoryEventType_DELETED, "r")
	require.Empty(t, list(t, s, nil))
	require.NoError(t, s.Flush(t.Context()))
	require.NotEmpty(t, blob(t, s, logs))
	var deleted *history.DeletedError
	require.ErrorAs(t, s.Listen(t.Context(), &controlpb.BuildHistoryRequest{Ref: "r", EarlyExit: true}, nil), &deleted)
	var missing *history.NotFoundError
	require.ErrorAs(t, s.Delete(t.Context(), "r"), &missing)
	l.end(t)
	require.NoError(t, s.Flush(t.Context()))
	_, err := s.Content().Info(t.Context(), digest.Digest(logs.GetDigest()))
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	require.Empty(t, list(t, s, &controlpb.BuildHistoryRequest{Ref: "r"}))
}

func TestRecordsAreLimitedAndFiltered(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := open(t, history.Config{Now: func() time.Time { return now }})
	add := func(ref string, took time.Duration, attrs map[string]string, err error) {
		now = now.Add(time.Minute)
		told := feed.New("")
		b := s.Begin(&history.Record{Ref: ref, FrontendAttrs: attrs})
		now = now.Add(took)
		told.Close()
		b.End(history.Outcome{Feed: told, Err: err})
	}
	add("one", time.Second, map[string]string{"context": "https://user:pw@example.org/a.git#main"}, nil)
	add("two", time.Hour, map[string]string{"vcs:source": "https://example.org/b.git"}, errors.New("no"))
	add("three", time.Minute, map[string]string{"context": "https://example.org/a.tar"}, fmt.Errorf("stop: %w", context.Canceled))
	s.Begin(&history.Record{Ref: "now"})

	require.Equal(t, []string{"now", "one", "two", "three"}, refs(list(t, s, nil)))
	require.Equal(t, []string{"now", "three", "two"}, refs(list(t, s, &controlpb.BuildHistoryRequest{Limit: 2})))
	require.Equal(t, []string{"now"}, refs(list(t, s, &controlpb.BuildHistoryRequest{ActiveOnly: true})))
	err := s.Listen(t.Context(), &controlpb.BuildHistoryRequest{Limit: -2}, nil)
	require.EqualError(t, err, "invalid limit -2")

	for filter, want := range map[string]string{
		"ref==two":                              "two",
		"ref!=two":                              "one three",
		"ref~=^t":                               "two three",
		"status==completed":                     "one",
		"status==error":                         "two",
		"status==canceled":                      "three",
		"status==running":                       "",
		"repository==https://example.org/a.git": "one",
		"repository~=example.org":               "one two",
		"duration>30s":                          "two three",
		"duration>=1h":                          "two",
		"duration<1m":                           "one",
		"duration<=1m,status==canceled":         "three",
		"startedAt>3m":                          "three",
		"completedAt<10m":                       "one",
		"startedAt<" + now.Add(-90*time.Second).UTC().Format(time.RFC3339): "one two",
	} {
		got := slices.DeleteFunc(refs(list(t, s, &controlpb.BuildHistoryRequest{Filter: []string{filter}})), func(r string) bool { return r == "now" })
		require.Equal(t, strings.Fields(want), got, filter)
	}
	require.Equal(t, []string{"now", "one", "three"}, refs(list(t, s, &controlpb.BuildHistoryRequest{Filter: []string{"ref==one", "ref==three"}})))
	for _, bad := range []string{"", "ref==", "duration>soon", "startedAt>yesterday", "ref==a,duration>", "ref==a\nref==b", "ref==a\n\"", "status>error", "ref=~a", "("} {
		err := s.Listen(t.Context(), &controlpb.BuildHistoryRequest{EarlyExit: true, Filter: []string{bad}}, func(*history.Event) error { return nil })
		require.Equal(t, codes.InvalidArgument, status.Code(err), bad)
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"ref==a", "duration>1s,status==x", "startedAt<=2026-01-02T03:04:05Z", "\"a,b\"==c", "repository~=x"} {
		f.Add(s)
	}
	dir := f.TempDir()
	s := history.Open(f.Context(), history.Config{Dir: dir})
	f.Fuzz(func(t *testing.T, filter string) {
		err := s.Listen(t.Context(), &controlpb.BuildHistoryRequest{Filter: []string{filter}, EarlyExit: true}, func(*history.Event) error { return nil })
		if err != nil {
			require.Equal(t, codes.InvalidArgument, status.Code(err))
		}
	})
}

func TestCredentialsAreNotRecorded(t *testing.T) {
	const mark = "s3cr3t"
	s := open(t, history.Config{})
	told := feed.New("")
	b := s.Begin(&history.Record{
		Ref: "r", Frontend: "https://user:" + mark + "@example.org",
		FrontendAttrs: map[string]string{
			"context":              "https://user:" + mark + "@example.org/a.git#main",
			"vcs:source":           "https://" + mark + "@example.org/a.git",
			"build-arg:HTTP_PROXY": "http://u:" + mark + "@proxy:3128",
			"cache-imports":        `[{"Type":"gha","Attrs":{"token":"` + mark + `","scope":"x"}}]`,
			"plain":                "stays",
		},
		Exporters: []*controlpb.Exporter{{Type: "image", Attrs: map[string]string{"name": "a", "token": mark}}},
	})
	told.Close()
	encode := base64.StdEncoding.EncodeToString
	file := "FROM busybox\nADD https://" + mark + "@example.org/a /\n"
	b.End(history.Outcome{Feed: told, Response: map[string]string{
		"source": "ssh://git:" + mark + "@example.org/x", "result.json": `{"sources":["` + encode([]byte(file)) + `"]}`,
	}})
	rec := list(t, s, nil)[0].GetRecord()
	require.NotContains(t, rec.String(), mark)
	shown := strings.ReplaceAll(file, mark, "xxxxx")
	require.Equal(t, `{"sources":["`+encode([]byte(shown))+`"]}`, rec.GetExporterResponse()["result.json"])
	require.Equal(t, "stays", rec.GetFrontendAttrs()["plain"])
	require.Contains(t, rec.GetFrontendAttrs()["cache-imports"], `"scope":"x"`)
	require.Equal(t, "a", rec.GetExporters()[0].GetAttrs()["name"])

	b = s.Begin(&history.Record{Ref: "broken", FrontendAttrs: map[string]string{"cache-imports": `{"token":"` + mark}})
	require.NotContains(t, list(t, s, &controlpb.BuildHistoryRequest{Ref: "broken"})[0].String(), mark)
	told = feed.New("")
	told.Close()
	b.End(history.Outcome{Feed: told})
}

// damage is what may have happened to a folder between two runs.
func TestADamagedHistoryIsNoHindrance(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"no file":        func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "history.db"))) },
		"an empty file":  func(t *testing.T, dir string) { require.NoError(t, os.Truncate(filepath.Join(dir, "history.db"), 0)) },
		"half a file":    func(t *testing.T, dir string) { halve(t, filepath.Join(dir, "history.db")) },
		"another file":   func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "history.db"), 0) },
		"pages of noise": func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "history.db"), 2*os.Getpagesize()) },
		"no blobs":       func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "blobs"))) },
		"another version": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "version"), []byte("99\n"), 0o600))
		},
		"a file for a folder": func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.WriteFile(dir, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "history")
			s := open(t, history.Config{Dir: dir})
			for i := range 50 {
				build(t, s, &history.Record{Ref: fmt.Sprint(i)}, strings.Repeat("x", 10_000), nil)
			}
			build(t, s, &history.Record{Ref: "long"}, strings.Repeat("x", 1<<20), nil)
			list(t, s, nil)
			require.NoError(t, s.Close())
			damage(t, dir)

			s = open(t, history.Config{Dir: dir})
			for _, e := range list(t, s, nil) {
				_, err := output(t, s, e.GetRecord().GetRef())
				require.NoError(t, err)
			}
			told := feed.New(s.TapeDir())
			b := s.Begin(&history.Record{Ref: "after"})
			event.NewScope(told, "v").Log(event.Stdout, []byte("after"))
			told.Close()
			b.End(history.Outcome{Feed: told})
			if b != nil {
				text, err := output(t, s, "after")
				require.NoError(t, err)
				require.Equal(t, "after", text)
			}
			require.NoError(t, s.Close())
			again := open(t, history.Config{Dir: dir})
			require.Equal(t, b != nil, slices.Contains(refs(list(t, again, nil)), "after"))
		})
	}
}

// A disk may also take back what it has given, while the daemon runs.
func TestAHistoryThatGetsDamagedIsMadeAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	s := open(t, history.Config{Dir: dir, MaxEntries: 10})
	for i := range 5 {
		build(t, s, &history.Record{Ref: fmt.Sprint(i)}, "text", nil)
	}
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, os.Truncate(filepath.Join(dir, "history.db"), int64(2*os.Getpagesize())))
	build(t, s, &history.Record{Ref: "after"}, "after", nil)
	require.NoError(t, s.Flush(t.Context()))
	require.Equal(t, []string{"after"}, refs(list(t, s, nil)))
	text, err := output(t, s, "after")
	require.NoError(t, err)
	require.Equal(t, "after", text)
	require.NoError(t, s.Close())
	require.Equal(t, []string{"after"}, refs(list(t, open(t, history.Config{Dir: dir}), nil)))
}

func halve(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, st.Size()/2))
}

// overwrite puts noise over a file, from a place to its end.
func overwrite(t *testing.T, path string, from int) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // a test
	for i := from; i < len(data); i++ {
		data[i] = byte(rnd.IntN(256))
	}
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func TestANameThatIsUsedAgainReplacesItsRecord(t *testing.T) {
	s := open(t, history.Config{})
	for _, text := range []string{"first", "second"} {
		build(t, s, &history.Record{Ref: "r"}, text, nil)
		got, err := output(t, s, "r")
		require.NoError(t, err)
		require.Equal(t, text, got)
	}
	require.Len(t, list(t, s, nil), 1)
}
