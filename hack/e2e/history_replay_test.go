package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/status"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// seen is what a build tells, put together: all of it that does not depend on how it came.
type seen struct {
	mu       sync.Mutex
	vertices []event.Vertex // in the order in which they were first told of, as they were last
	statuses map[string]event.Status
	logs     map[digest.Digest][]event.Log // pieces that follow each other in one stream are one
	warnings []event.Warning
	said     chan struct{} // closed at the first output
}

func newSeen() *seen {
	return &seen{statuses: map[string]event.Status{}, logs: map[digest.Digest][]event.Log{}, said: make(chan struct{})}
}

func (s *seen) Emit(b event.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range b.Vertices {
		known := false
		for i := range s.vertices {
			if s.vertices[i].Digest == v.Digest {
				s.vertices[i], known = v, true
			}
		}
		if !known {
			s.vertices = append(s.vertices, v)
		}
	}
	for _, st := range b.Statuses {
		s.statuses[st.Vertex.String()+st.ID] = st
	}
	for _, l := range b.Logs {
		if len(s.logs) == 0 {
			close(s.said)
		}
		all := s.logs[l.Vertex]
		if n := len(all); n > 0 && all[n-1].Stream == l.Stream {
			all[n-1].Data = append(all[n-1].Data, l.Data...)
		} else {
			l.Data, l.Timestamp = bytes.Clone(l.Data), time.Time{}
			all = append(all, l)
		}
		s.logs[l.Vertex] = all
	}
	s.warnings = append(s.warnings, b.Warnings...)
}

// output returns all that steps printed.
func (s *seen) output() string {
	var b strings.Builder
	for _, pieces := range s.logs {
		for _, l := range pieces {
			b.Write(l.Data)
		}
	}
	return b.String()
}

// replayed returns what the record of a build tells.
func replayed(tb testing.TB, c *bkclient.Client, ref string) *seen {
	tb.Helper()
	s := newSeen()
	require.NoError(tb, c.Status(tb.Context(), ref, s))
	return s
}

// watched builds and returns what was told on the way, and what the record says afterwards.
func watched(ctx context.Context, tb testing.TB, c *bkclient.Client, live *seen, state llb.State, opt bkclient.SolveOpt) (*seen, error) {
	tb.Helper()
	opt.Ref, opt.Progress = cmp.Or(opt.Ref, bkclient.NewRef()), live
	_, err := c.Solve(ctx, marshal(tb, state), opt)
	return replayed(tb, c, opt.Ref), err
}

func requireSame(tb testing.TB, live, kept *seen) {
	tb.Helper()
	require.NotEmpty(tb, live.vertices)
	require.Equal(tb, live.vertices, kept.vertices)
	require.Equal(tb, live.statuses, kept.statuses)
	require.Equal(tb, live.logs, kept.logs)
	require.Equal(tb, live.warnings, kept.warnings)
}

// The record of a build tells what those saw who watched it, however it ended.
func TestARecordTellsWhatTheClientSaw(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	c := connect(t, d)
	base := llb.Image("docker.io/library/busybox")
	good := base.Run(llb.Shell("for i in $(seq 500); do echo out $i; echo err $i >&2; done")).Root()
	for name, c1 := range map[string]struct {
		state llb.State
		err   string
	}{
		"succeeds": {state: good},
		"fails":    {base.Run(llb.Shell("echo said; exit 3")).Root(), "exit code: 3"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, again := range []string{"first", "again, from the cache"} {
				live := newSeen()
				kept, err := watched(t.Context(), t, c, live, c1.state, bkclient.SolveOpt{})
				if c1.err == "" {
					require.NoError(t, err, again)
				} else {
					require.ErrorContains(t, err, c1.err, again)
				}
				requireSame(t, live, kept)
			}
		})
	}
	t.Run("is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		live, other, ref := newSeen(), newSeen(), bkclient.NewRef()
		ended := make(chan error, 1)
		go func() { ended <- c.Status(t.Context(), ref, other) }()
		go func() {
			<-live.said
			cancel()
		}()
		kept, err := watched(ctx, t, c, live, base.Run(llb.Shell("echo said; sleep 100")).Root(), bkclient.SolveOpt{Ref: ref})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, live.logs, kept.logs)
		require.NoError(t, <-ended)
		requireSame(t, other, kept)
		i := slices.IndexFunc(kept.vertices, func(v event.Vertex) bool { return strings.Contains(v.Name, "sleep 100") })
		require.NotNil(t, kept.vertices[i].Completed)
		require.Contains(t, kept.vertices[i].Error, "context canceled")
	})
	t.Run("warns", func(t *testing.T) {
		ref, live := recorded(t, d, dockerfile(t, "FROM busybox", "MAINTAINER x", "CMD echo x"))
		require.Zero(t, live.Code, live.Stderr)
		kept := replayed(t, c, ref)
		require.Len(t, kept.warnings, 2)
		for _, w := range kept.warnings {
			require.Contains(t, live.Stderr, string(w.Short))
			require.NotEmpty(t, w.Ranges)
		}
		require.Contains(t, d.MustBuildctl(t, "debug", "logs", "--progress=plain", ref).Stdout, "WARN: MaintainerDeprecated")
	})
}

// Output is bytes, of any kind and in any pieces.
func TestOutputOfAnyKindIsKeptAsItIs(t *testing.T) {
	d := start(t, harness.DaemonOptions{Env: []string{"BUILDKIT_STEP_LOG_MAX_SIZE=-1", "BUILDKIT_STEP_LOG_MAX_SPEED=-1"}})
	c := connect(t, d)
	base := llb.Image("docker.io/library/busybox")
	for name, c1 := range map[string]struct{ script, want string }{
		"a line without an end":  {"printf begun; sleep 0.2; printf ' and left'", "begun and left"},
		"progress with returns":  {`printf '10%%\r20%%\r100%%\r\n'`, "10%\r20%\r100%\r\n"},
		"every byte":             {`i=0; while [ $i -lt 256 ]; do printf "\\$(printf %o $i)"; i=$((i+1)); done`, everyByte()},
		"a line of three MiB":    {"head -c 3145728 /dev/zero | tr '\\0' x; echo", strings.Repeat("x", 3<<20) + "\n"},
		"nothing but line ends":  {"head -c 100000 /dev/zero | tr '\\0' '\\n'", strings.Repeat("\n", 100_000)},
		"letters cut in between": {`printf '\303'; sleep 0.2; printf '\244\n'`, "ä\n"},
	} {
		t.Run(name, func(t *testing.T) {
			live := newSeen()
			kept, err := watched(t.Context(), t, c, live, base.Run(llb.Shell(c1.script)).Root(), bkclient.SolveOpt{})
			require.NoError(t, err)
			require.Equal(t, digest.FromString(c1.want), digest.FromString(kept.output()), "%.100q", kept.output())
			requireSame(t, live, kept)
		})
	}
	t.Run("two streams keep their order", func(t *testing.T) {
		live := newSeen()
		kept, err := watched(t.Context(), t, c, live, base.Run(llb.Shell("for i in 1 2 3 4 5; do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done")).Root(), bkclient.SolveOpt{})
		require.NoError(t, err)
		require.Equal(t, "o1\ne1\no2\ne2\no3\ne3\no4\ne4\no5\ne5\n", kept.output())
		requireSame(t, live, kept)
	})
}

func everyByte() string {
	var b [256]byte
	for i := range b {
		b[i] = byte(i)
	}
	return string(b[:])
}

// noted returns the files that tell of builds that run.
func noted(tb testing.TB, d *harness.Daemon) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(d.Root, "openbuildkit", "history", "running", "*"))
	require.NoError(tb, err)
	return names
}

// requireNoNotes returns when nothing tells of builds that run: a note goes when the record is on the disk.
func requireNoNotes(tb testing.TB, d *harness.Daemon) {
	tb.Helper()
	eventually(tb, 10*time.Second, func() error {
		if left := noted(tb, d); len(left) > 0 {
			return fmt.Errorf("%q are left", left)
		}
		return nil
	})
}

// awaitSaved waits until text is among what is on the disk of builds that run.
func awaitSaved(tb testing.TB, d *harness.Daemon, text string) {
	tb.Helper()
	eventually(tb, 20*time.Second, func() error {
		for _, name := range noted(tb, d) {
			if data, err := os.ReadFile(name); err == nil && bytes.Contains(data, []byte(text)) {
				return nil
			}
		}
		return fmt.Errorf("%q is not saved", text)
	})
}

// Who asks what became of a build that its daemon did not live to end is told so, and what it printed.
func TestABuildThatItsDaemonDidNotLiveToEndIsInTheHistory(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	refs := map[string]string{}
	var clients []*client
	for _, name := range []string{"one", "two"} {
		ref := filepath.Join(t.TempDir(), "ref")
		refs[name] = ref
		clients = append(clients, launch(t, d, append(harness.DockerfileArgs(dockerfile(t, "FROM busybox", "RUN echo said by "+name+"; sleep 100")), "--ref-file="+ref)...))
	}
	for name := range refs {
		awaitSaved(t, d, "said by "+name+"\n")
	}
	d.Kill(t)
	for _, c := range clients {
		require.Equal(t, 1, c.wait(t).Code)
	}
	d.Start(t)
	c := connect(t, d)
	for name, file := range refs {
		ref := read(t, file)
		var events []*controlpb.BuildHistoryEvent
		require.NoError(t, c.ListenHistory(t.Context(), &controlpb.BuildHistoryRequest{Ref: ref, EarlyExit: true}, func(e *controlpb.BuildHistoryEvent) error {
			events = append(events, e)
			return nil
		}))
		require.Len(t, events, 1)
		require.Equal(t, controlpb.BuildHistoryEventType_COMPLETE, events[0].GetType())
		require.EqualValues(t, codes.Unavailable, events[0].GetRecord().GetError().GetCode())
		logs := d.MustBuildctl(t, "debug", "logs", "--progress=plain", ref).Stdout
		require.Contains(t, logs, "said by "+name)
		require.Contains(t, logs, "ERROR: the daemon ended while the build was running")
		require.Contains(t, d.MustBuildctl(t, "debug", "histories").Stdout, ref)
	}
	requireNoNotes(t, d)
	d.MustBuildctl(t, "prune-histories")
	requirePruned(t, d)
}

// A daemon may be killed whenever it writes to the history. It opens it again, with nothing in it that is not
// whole, and nothing beside it.
func TestSoakAHistoryOutlivesKillsAtAnyMoment(t *testing.T) {
	d := start(t, harness.DaemonOptions{Dir: tmpfs(t, "1g")})
	known := map[string]bool{}
	for round := range harness.Rounds(4, 40) {
		var clients []*client
		for i := range 3 {
			// Output that makes a file of its own, and some that does not.
			lines := []int{10, 40_000, 400_000}[i]
			clients = append(clients, launchBuild(t, d, dockerfile(t, "FROM busybox", fmt.Sprintf("RUN echo %d; seq %d; sleep 0.%d", round, lines, i*3))))
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { finalizeAll(d, stop) })
		after(t, time.Duration(300+round*397%2400)*time.Millisecond)
		d.Kill(t)
		close(stop)
		wg.Wait()
		for _, c := range clients {
			c.waitWithin(t, 15*time.Second)
		}
		d.Start(t)
		require.NotContains(t, d.Logs(), "is damaged")
		c := connect(t, d)
		require.NoError(t, c.ListenHistory(t.Context(), &controlpb.BuildHistoryRequest{EarlyExit: true}, func(e *controlpb.BuildHistoryEvent) error {
			rec := e.GetRecord()
			known[rec.GetRef()] = true
			require.Equal(t, controlpb.BuildHistoryEventType_COMPLETE, e.GetType())
			for _, desc := range []*controlpb.Descriptor{rec.GetLogs(), rec.GetTrace(), rec.GetExternalError()} {
				if desc != nil {
					var b bytes.Buffer
					require.NoError(t, c.ReadBlob(t.Context(), digest.Digest(desc.GetDigest()), &b))
					require.Len(t, b.Bytes(), int(desc.GetSize()))
				}
			}
			return nil
		}))
		requireNoNotes(t, d)
	}
	require.NotEmpty(t, known)
	requirePruned(t, d)
}

// finalizeAll finalizes all builds there are, again and again.
func finalizeAll(d *harness.Daemon, stop <-chan struct{}) {
	c, err := bkclient.New(d.Addr)
	if err != nil {
		return
	}
	defer c.Close()
	ctx := context.Background()
	for {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		_ = c.ListenHistory(ctx, &controlpb.BuildHistoryRequest{EarlyExit: true}, func(e *controlpb.BuildHistoryEvent) error {
			if e.GetRecord().GetTrace() == nil {
				_ = c.FinalizeHistory(ctx, e.GetRecord().GetRef())
			}
			return nil
		})
	}
}

// Blobs and records that the disk has damaged are told as such, and hurt no build.
func TestBlobsOfTheHistoryThatAreDamagedAreTold(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	ref, result := recorded(t, d, dockerfile(t, "FROM busybox", "RUN seq 100000"))
	require.Zero(t, result.Code, result.Stderr)
	d.Stop(t)
	files, err := filepath.Glob(filepath.Join(d.Root, "openbuildkit", "history", "blobs", "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	content := []byte(read(t, files[0]))
	copy(content[len(content)/2:], "\xff\xff\xff\xff\xff\xff\xff\xff")
	require.NoError(t, os.WriteFile(files[0], content, 0o600))
	d.Start(t)
	c := connect(t, d)
	err = c.Status(t.Context(), ref, event.Discard)
	require.Equal(t, codes.DataLoss, status.Code(err))
	err = c.ReadBlob(t.Context(), digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(files[0])), &bytes.Buffer{})
	require.Equal(t, codes.DataLoss, status.Code(err))
	require.Equal(t, 1, d.Buildctl(t, "debug", "logs", ref).Code)
	d.Build(t, dockerfile(t, "FROM busybox", "RUN echo more"))
	require.NoError(t, os.Remove(files[0]))
	err = c.Status(t.Context(), ref, event.Discard)
	require.Equal(t, codes.NotFound, status.Code(err))
	requirePruned(t, d)
}
