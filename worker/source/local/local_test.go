//go:build linux

package local

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/checksum"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
)

// bench is a daemon.
type bench struct {
	t        *testing.T
	cache    *cache.Manager
	sessions *session.Manager
	src      *Source

	mu       sync.Mutex
	statuses []event.Status
}

func newBench(t *testing.T) *bench {
	t.Helper()
	m, err := cache.Open(t.Context(), cache.Config{Root: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	b := &bench{t: t, cache: m, sessions: session.NewManager()}
	b.src = New(Config{Cache: m, Sessions: b.sessions, Checksums: checksum.New()})
	return b
}

// client is a session that offers directories by name.
func (b *bench) client(sharedKey string, dirs map[string]string) string {
	b.t.Helper()
	s, err := session.New(sharedKey)
	require.NoError(b.t, err)
	offered := map[string]fsutil.FS{}
	for name, dir := range dirs {
		tree, err := filesync.NewFS(dir)
		require.NoError(b.t, err)
		b.t.Cleanup(func() { _ = tree.Close() })
		offered[name] = tree
	}
	if dirs != nil {
		s.Allow(filesync.NewProvider(offered))
	}
	return sessiontest.Run(b.t, b.sessions, s, nil).ID()
}

func (b *bench) instance(name string, attrs map[string]string, ids ...string) source.Instance {
	b.t.Helper()
	id, err := b.src.Parse(Scheme, name, attrs, ocispec.Platform{})
	require.NoError(b.t, err)
	inst, err := b.src.Instance(id, source.Env{
		Sessions: session.IDs(ids),
		Scope: event.NewScope(event.SinkFunc(func(batch event.Batch) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.statuses = append(b.statuses, batch.Statuses...)
		}), "sha256:v"),
	})
	require.NoError(b.t, err)
	return inst
}

// receive returns the files of a tree and its digest, and releases it.
func (b *bench) receive(name string, attrs map[string]string, ids ...string) (files []string, dgst string) {
	b.t.Helper()
	ref, err := b.instance(name, attrs, ids...).Fetch(b.t.Context())
	require.NoError(b.t, err)
	d, err := b.src.cfg.Checksums.Digest(b.t.Context(), ref, "/", checksum.Opt{}, cache.Access{})
	require.NoError(b.t, err)
	fresh, err := checksum.New().Digest(b.t.Context(), ref, "/", checksum.Opt{}, cache.Access{})
	require.NoError(b.t, err)
	require.Equal(b.t, fresh, d, "what was digested on the way is what is there")
	files = b.list(ref)
	require.NoError(b.t, ref.Release(b.t.Context()))
	return files, d.String()
}

func (b *bench) list(ref *cache.Ref) []string {
	b.t.Helper()
	m, err := ref.Mount(b.t.Context(), true, cache.Access{})
	require.NoError(b.t, err)
	dir, unmount, err := snapshot.MountTemp(m)
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, unmount()) }()
	var all []string
	require.NoError(b.t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if e.Type().IsRegular() {
			data, _ := os.ReadFile(path)
			rel += "=" + string(data)
		}
		all = append(all, rel)
		return nil
	}))
	return all
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// locals returns the kept trees.
func (b *bench) locals() []cache.Usage {
	b.t.Helper()
	all, err := b.cache.DiskUsage(b.t.Context(), []string{"type==source.local"})
	require.NoError(b.t, err)
	return all
}

func TestReceive(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "d/b": "2", "d/skip.o": "3"})
	require.NoError(t, os.Symlink("a", dir+"/l"))
	id := b.client("key", map[string]string{"context": dir})

	files, _ := b.receive("context", map[string]string{
		pb.AttrLocalExcludePatterns: `["**/*.o"]`, pb.AttrLocalSession: id,
	})
	require.Equal(t, []string{"a=1", "d", "d/b=2", "l"}, files)
	last := b.statuses[len(b.statuses)-1]
	require.Equal(t, "transferring context:", last.ID)
	require.Equal(t, "transferring", last.Name)
	require.NotNil(t, last.Completed)
	require.Positive(t, last.Current)

	files, _ = b.receive("context", map[string]string{pb.AttrLocalFollowPaths: `["l"]`}, id)
	require.Equal(t, []string{"a=1", "l"}, files)
	files, _ = b.receive("context", map[string]string{pb.AttrLocalIncludePatterns: `["d"]`}, id)
	require.Equal(t, []string{"d", "d/b=2", "d/skip.o=3"}, files)
	require.Len(t, b.locals(), 1, "one tree serves all")
	require.Equal(t, "local source for context", b.locals()[0].Description)
}

func TestUnchangedFilesAreNotSentAgain(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	big := strings.Repeat("x", 1<<20)
	write(t, dir, map[string]string{"big": big, "small": "1"})
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(dir+"/big", old, old))
	// A change is told from the next by its time, which file systems store in coarse steps: what
	// changed just now is always sent.
	<-time.After(100 * time.Millisecond)
	sent := func() int64 { return b.statuses[len(b.statuses)-1].Current }

	_, first := b.receive("context", nil, b.client("key", map[string]string{"context": dir}))
	require.Greater(t, sent(), int64(1<<20))
	_, again := b.receive("context", nil, b.client("key", map[string]string{"context": dir}))
	require.Less(t, sent(), int64(1<<10), "another session with the same key")
	require.Equal(t, first, again)

	write(t, dir, map[string]string{"small": "22"})
	files, changed := b.receive("context", nil, b.client("key", map[string]string{"context": dir}))
	require.Equal(t, []string{"big=" + big, "small=22"}, files)
	require.NotEqual(t, first, changed)
	require.Less(t, sent(), int64(1<<10))

	b.receive("context", map[string]string{pb.AttrLocalDiffer: "none"}, b.client("key", map[string]string{"context": dir}))
	require.Greater(t, sent(), int64(1<<20))
	require.Len(t, b.locals(), 1)

	for name, id := range map[string]string{
		"another key": b.client("other", map[string]string{"context": dir}),
		"no key":      b.client("", map[string]string{"context": dir}),
	} {
		b.receive("context", nil, id)
		require.Greater(t, sent(), int64(1<<20), name)
	}
	b.receive("context", map[string]string{pb.AttrLocalSharedKeyHint: "hint"}, b.client("key", map[string]string{"context": dir}))
	require.Greater(t, sent(), int64(1<<20), "another hint")
	require.Len(t, b.locals(), 4)
}

func TestClientsWithoutASharedKeyLeaveOneTree(t *testing.T) {
	b := newBench(t)
	set := time.Unix(1700000000, 0)
	for _, text := range []string{"1", "2", "3"} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"a": text})
		require.NoError(t, os.Chtimes(dir+"/a", set, set))
		files, _ := b.receive("context", nil, b.client("", map[string]string{"context": dir}))
		require.Equal(t, []string{"a=" + text}, files)
	}
	require.Len(t, b.locals(), 1)
}

func TestAnUnchangedTreeIsTheSameRecord(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "b": "2"})
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(dir+"/a", old, old))
	// See TestUnchangedFilesAreNotSentAgain.
	<-time.After(100 * time.Millisecond)
	fetch := func() string {
		id := b.client("key", map[string]string{"context": dir})
		ref, err := b.instance("context", nil, id).Fetch(t.Context())
		require.NoError(t, err)
		require.NoError(t, ref.Release(t.Context()))
		_, _ = b.receive("context", nil, id) // which compares the digest with the files
		return ref.ID()
	}
	first := fetch()
	require.Equal(t, first, fetch())
	write(t, dir, map[string]string{"a": "2"})
	second := fetch()
	require.NotEqual(t, first, second)
	<-time.After(100 * time.Millisecond)
	third := fetch()
	require.Equal(t, third, fetch())
	require.NoError(t, os.Remove(dir+"/b"))
	require.NotEqual(t, third, fetch())
	require.Len(t, b.locals(), 1)
}

func TestATreeInUseIsLeftAlone(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	id := b.client("key", map[string]string{"context": dir})
	first, err := b.instance("context", nil, id).Fetch(t.Context())
	require.NoError(t, err)
	write(t, dir, map[string]string{"a": "22"})
	second, err := b.instance("context", nil, id).Fetch(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a=1"}, b.list(first))
	require.Equal(t, []string{"a=22"}, b.list(second))
	require.NoError(t, first.Release(t.Context()))
	require.NoError(t, second.Release(t.Context()))
}

func TestSessions(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	with := b.client("", map[string]string{"context": dir})
	without := b.client("", nil)
	other := b.client("", map[string]string{"else": dir})

	t.Run("any session of the build that has it serves", func(t *testing.T) {
		files, _ := b.receive("context", nil, without, other, with)
		require.Equal(t, []string{"a=1"}, files)
		files, _ = b.receive("context", map[string]string{pb.AttrLocalSession: other}, with)
		require.Equal(t, []string{"a=1"}, files)
	})
	for name, tc := range map[string]struct {
		ids  []string
		want string
	}{
		"a client without directories": {[]string{without}, "no local sources enabled"},
		"a client with other ones":     {[]string{other}, `no access allowed to dir "context"`},
		"no client":                    {nil, "no active session"},
		"clients that both lack it":    {[]string{without, other}, "no local sources enabled"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(b.locals())
			_, err := b.instance("context", nil, tc.ids...).Fetch(t.Context())
			require.ErrorContains(t, err, tc.want)
			require.Len(t, b.locals(), before, "nothing is kept of a failure")
		})
	}
}

func TestAFailureLeavesNothingStale(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "b": "2"})
	id := b.client("key", map[string]string{"context": dir})
	_, first := b.receive("context", nil, id)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.instance("context", nil, id).Fetch(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, again := b.receive("context", nil, id)
	require.Equal(t, first, again)
	require.Len(t, b.locals(), 1)
}

func TestMetadataOnly(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "keep/b": "2"})
	id := b.client("key", map[string]string{"context": dir})
	ref, err := b.instance("context", map[string]string{
		pb.AttrLocalMetadataTransfer: "true", pb.AttrLocalMetadataTransferExclude: `["keep"]`,
	}, id).Fetch(t.Context())
	require.NoError(t, err)
	files := b.list(ref)
	require.Contains(t, files, "keep/b=2")
	require.NotContains(t, files, "a=1")
	require.NoError(t, ref.Release(t.Context()))
}

func TestKey(t *testing.T) {
	b := newBench(t)
	key := func(attrs map[string]string, ids ...string) source.Key {
		k, done, err := b.instance("context", attrs, ids...).Key(t.Context(), 0)
		require.NoError(t, err)
		require.True(t, done)
		return k
	}
	one := key(nil, "s1")
	require.True(t, one.Session)
	require.Empty(t, one.Pin)
	require.True(t, strings.HasPrefix(one.Value, "session:context:sha256:"), one.Value)
	require.Equal(t, one, key(nil, "s1", "s2"))
	require.Equal(t, one, key(map[string]string{pb.AttrLocalSession: "s1"}, "s2"))
	require.NotEqual(t, one, key(nil, "s2"))
	require.NotEqual(t, one, key(map[string]string{pb.AttrLocalExcludePatterns: `["x"]`}, "s1"))
}

func TestParseErrors(t *testing.T) {
	for k, v := range map[string]string{
		pb.AttrLocalIncludePatterns: "x", pb.AttrLocalExcludePatterns: `{}`, pb.AttrLocalFollowPaths: `[1]`,
		pb.AttrLocalDiffer: "some", pb.AttrLocalMetadataTransfer: "perhaps",
	} {
		_, err := New(Config{}).Parse(Scheme, "context", map[string]string{k: v}, ocispec.Platform{})
		require.ErrorContains(t, err, fmt.Sprintf("invalid %s", k))
	}
}
