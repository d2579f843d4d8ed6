//go:build linux

package http

import (
	"context"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
)

const stamp = "Thu, 01 Jan 2026 00:00:00 GMT"

// request is one that a server got.
type request struct {
	nethttp.Header
	Method, Path string
}

// web is a server with a file for each path, and what it was asked.
type web struct {
	*httptest.Server
	mu    sync.Mutex
	asked []request
	// handle answers.
	handle nethttp.HandlerFunc
}

func newWeb(t *testing.T, handle nethttp.HandlerFunc) *web {
	t.Helper()
	w := &web{handle: handle}
	w.Server = httptest.NewTLSServer(nethttp.HandlerFunc(func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		w.mu.Lock()
		w.asked = append(w.asked, request{r.Header.Clone(), r.Method, r.URL.Path})
		h := w.handle
		w.mu.Unlock()
		h(rw, r)
	}))
	t.Cleanup(w.Close)
	return w
}

// take returns the methods that were asked since the last time.
func (w *web) take() (methods []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.asked {
		methods = append(methods, r.Method)
	}
	w.asked = nil
	return methods
}

func (w *web) set(h nethttp.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handle = h
}

// serve answers with content, tagged if etag is not empty.
func serve(content, etag string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		changed, _ := nethttp.ParseTime(stamp)
		nethttp.ServeContent(w, r, "", changed, strings.NewReader(content))
	}
}

func plain(content string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) { _, _ = io.WriteString(w, content) }
}

func fresh(content string) nethttp.HandlerFunc {
	changed := time.Now()
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		nethttp.ServeContent(w, r, "", changed, strings.NewReader(content))
	}
}

func unmodified(string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(nethttp.StatusNotModified) }
}

// bench is a daemon with one client.
type bench struct {
	t       *testing.T
	src     *Source
	session string
}

func newBench(t *testing.T, w *web, offers ...session.Attachable) *bench {
	t.Helper()
	m, err := cache.Open(t.Context(), cache.Config{Root: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	sessions := session.NewManager()
	cfg := Config{Cache: m, Sessions: sessions, Stall: time.Minute}
	if w != nil {
		cfg.Transport = w.Client().Transport
	}
	return &bench{t: t, src: New(cfg), session: sessiontest.Join(t, sessions, nil, offers...).ID()}
}

func (b *bench) instance(u string, attrs map[string]string, memo *source.Memo) *instance {
	b.t.Helper()
	scheme, ref, _ := strings.Cut(u, "://")
	id, err := b.src.Parse(scheme, ref, attrs, ocispec.Platform{})
	require.NoError(b.t, err)
	i, err := b.src.Instance(id, source.Env{Sessions: session.IDs{b.session}, Memo: memo})
	require.NoError(b.t, err)
	return i.(*instance)
}

// got is what a build gets of a url.
type got struct {
	key     source.Key
	id      string
	name    string
	content string
	mode    os.FileMode
	uid     uint32
	time    time.Time
}

func (b *bench) fetch(i *instance) (g got, err error) {
	b.t.Helper()
	if g.key, _, err = i.Key(b.t.Context(), 0); err != nil {
		return g, err
	}
	ref, err := i.Fetch(b.t.Context())
	if err != nil {
		return g, err
	}
	defer func() { require.NoError(b.t, ref.Release(b.t.Context())) }()
	g.id = ref.ID()
	m, err := ref.Mount(b.t.Context(), true, cache.Access{})
	require.NoError(b.t, err)
	dir, unmount, err := snapshot.MountTemp(m)
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, unmount()) }()
	entries, err := os.ReadDir(dir)
	require.NoError(b.t, err)
	require.Len(b.t, entries, 1, "a tree of one file")
	g.name = entries[0].Name()
	data, err := os.ReadFile(filepath.Join(dir, g.name))
	require.NoError(b.t, err)
	g.content = string(data)
	st, err := os.Stat(filepath.Join(dir, g.name))
	require.NoError(b.t, err)
	g.mode, g.time, g.uid = st.Mode(), st.ModTime().UTC(), st.Sys().(*syscall.Stat_t).Uid
	return g, nil
}

// get fetches in a build of its own.
func (b *bench) get(u string, attrs map[string]string) (got, error) {
	b.t.Helper()
	return b.fetch(b.instance(u, attrs, &source.Memo{}))
}

type memory map[string]string

func (m memory) Get(_ context.Context, id string) ([]byte, error) {
	if v, ok := m[id]; ok {
		return []byte(v), nil
	}
	return nil, &secrets.NotFoundError{ID: id}
}
