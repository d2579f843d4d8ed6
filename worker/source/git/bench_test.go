//go:build linux

package git

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/imageblob"
)

// backend is the program of git that serves repositories over http.
const backend = "/usr/lib/git-core/git-http-backend"

// repo is a repository that servers show.
type repo struct {
	t   testing.TB
	dir string
}

// newRepo makes a repository with one commit below root.
func newRepo(t testing.TB, root, name string, args ...string) *repo {
	t.Helper()
	r := &repo{t, filepath.Join(root, name)}
	require.NoError(t, os.MkdirAll(r.dir, 0o755))
	r.git(append([]string{"init", "-q", "-b", "main"}, args...)...)
	r.write("top.txt", "top\n")
	r.write("sub/in.txt", "in\n")
	r.commit("one")
	return r
}

// git runs git in the repository.
func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_AUTHOR_DATE=2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z", "GIT_ALLOW_PROTOCOL=file:http",
	}
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "git %s: %s", strings.Join(args, " "), out)
	return strings.TrimSpace(string(out))
}

func (r *repo) write(name, content string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(r.t, os.WriteFile(path, []byte(content), 0o644))
}

// commit commits all that is there and returns the commit.
func (r *repo) commit(message string) string {
	r.t.Helper()
	r.git("add", "--all", ".")
	r.git("commit", "-q", "--allow-empty", "-m", message)
	return r.head()
}

func (r *repo) head() string { r.t.Helper(); return r.git("rev-parse", "HEAD") }

// server is one that serves repositories over http, through git's own program.
type server struct {
	*httptest.Server
	mu sync.Mutex
	// asked are the requests: method, path and credentials.
	asked []string
	// auth is what a request must carry; empty for nothing.
	auth string
	// config are settings of git for the server.
	config []string
}

func serve(t testing.TB, root string, config ...string) *server {
	t.Helper()
	s := &server{config: config}
	s.Server = httptest.NewServer(s.handler(root))
	t.Cleanup(s.Close)
	return s
}

func (s *server) handler(root string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		auth := s.auth
		env := []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent",
			"GIT_PROTOCOL=" + r.Header.Get("Git-Protocol"), fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(s.config)+1),
			"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		}
		for n, c := range s.config {
			key, value, _ := strings.Cut(c, "=")
			env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", n+1, key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n+1, value))
		}
		s.mu.Unlock()
		if auth != "" && r.Header.Get("Authorization") != auth {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		(&cgi.Handler{Path: backend, Env: env}).ServeHTTP(w, r)
	})
}

// url returns the url of a repository.
func (s *server) url(name string) string { return s.URL + "/" + name + "/.git" }

func (s *server) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// bench is a daemon with one client.
type bench struct {
	t       testing.TB
	src     *Source
	session string
	// dir has the daemon's state.
	dir string

	mu   sync.Mutex
	logs strings.Builder
}

func newBench(t testing.TB, offers ...session.Attachable) *bench {
	t.Helper()
	dir := t.TempDir()
	m, err := cache.Open(t.Context(), cache.Config{Root: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	sessions := session.NewManager()
	blobs := imageblob.New(imageblob.Config{Cache: m, Registry: registry.New(registry.Config{}), Sessions: sessions})
	src := New(Config{Cache: m, Sessions: sessions, Blobs: blobs, Dir: filepath.Join(dir, "git jobs"), Environ: os.Environ()})
	b := &bench{t: t, src: src, dir: dir, session: sessiontest.Join(t, sessions, nil, offers...).ID()}
	t.Cleanup(func() {
		left, err := os.ReadDir(src.cfg.Dir)
		require.NoError(t, err)
		require.Empty(t, left, "jobs leave no files")
	})
	require.NoError(t, os.MkdirAll(src.cfg.Dir, 0o700))
	return b
}

// attrs are those of an op.
type attrs map[string]string

func (b *bench) parse(remote, fragment string, a attrs) (*Identifier, error) {
	all := map[string]string{pb.AttrGitFullURL: remote, pb.AttrGitAuthHeaderSecret: "GIT_AUTH_HEADER", pb.AttrGitAuthTokenSecret: "GIT_AUTH_TOKEN"}
	for k, v := range a {
		all[k] = v
	}
	id, err := b.src.Parse(Scheme, "h/r#"+fragment, all, ocispec.Platform{})
	if err != nil {
		return nil, err
	}
	return id.(*Identifier), nil
}

func (b *bench) instance(remote, fragment string, a attrs, memo *source.Memo) *instance {
	b.t.Helper()
	id, err := b.parse(remote, fragment, a)
	require.NoError(b.t, err)
	i, err := b.src.Instance(id, b.env(memo))
	require.NoError(b.t, err)
	return i.(*instance)
}

func (b *bench) env(memo *source.Memo) source.Env {
	return source.Env{Sessions: session.IDs{b.session}, Memo: memo, Scope: event.NewScope(event.SinkFunc(func(batch event.Batch) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, l := range batch.Logs {
			b.logs.Write(l.Data)
		}
	}), "sha256:v")}
}

// got is what a build gets.
type got struct {
	key   source.Key
	id    string
	files map[string]string
	modes map[string]fs.FileMode
	info  map[string]fs.FileInfo
}

// fetch returns the tree, in a build of its own.
func (b *bench) fetch(remote, fragment string, a attrs) (*got, error) {
	b.t.Helper()
	return b.take(b.instance(remote, fragment, a, &source.Memo{}))
}

func (b *bench) take(i *instance) (_ *got, err error) {
	b.t.Helper()
	tr := &got{files: map[string]string{}, modes: map[string]fs.FileMode{}, info: map[string]fs.FileInfo{}}
	if tr.key, _, err = i.Key(b.t.Context(), 0); err != nil {
		return nil, err
	}
	ref, err := i.Fetch(b.t.Context())
	if err != nil {
		return nil, err
	}
	defer func() { require.NoError(b.t, ref.Release(context.WithoutCancel(b.t.Context()))) }()
	tr.id = ref.ID()
	m, err := ref.Mount(b.t.Context(), true, cache.Access{})
	require.NoError(b.t, err)
	dir, unmount, err := snapshot.MountTemp(m)
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, unmount()) }()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(b.t, err)
		rel, err := filepath.Rel(dir, path)
		require.NoError(b.t, err)
		info, err := d.Info()
		require.NoError(b.t, err)
		tr.modes[rel], tr.info[rel] = info.Mode(), info
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			require.NoError(b.t, err)
			tr.files[rel] = string(data)
		}
		return nil
	})
	require.NoError(b.t, err)
	return tr, nil
}

// must is fetch without an error.
func (b *bench) must(remote, fragment string, a attrs) *got {
	b.t.Helper()
	tr, err := b.fetch(remote, fragment, a)
	require.NoError(b.t, err)
	return tr
}

// shared returns the folder of the repository that is kept for remotes.
func (b *bench) shared() string {
	b.t.Helper()
	usage, err := b.src.cfg.Cache.DiskUsage(b.t.Context(), []string{"type==source.git.checkout"})
	require.NoError(b.t, err)
	require.Len(b.t, usage, 1)
	ref, err := b.src.cfg.Cache.GetMutable(b.t.Context(), usage[0].ID)
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, ref.Release(b.t.Context())) }()
	m, err := ref.Mount(b.t.Context(), false)
	require.NoError(b.t, err)
	dir, unmount, err := snapshot.MountTemp(m)
	require.NoError(b.t, err)
	require.NoError(b.t, unmount())
	return dir
}

type memory map[string]string

func (m memory) Get(_ context.Context, id string) ([]byte, error) {
	if v, ok := m[id]; ok {
		return []byte(v), nil
	}
	return nil, &secrets.NotFoundError{ID: id}
}
