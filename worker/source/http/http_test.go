//go:build linux

package http

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/session/upload"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
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

func TestAFileIsFetchedOverTLS(t *testing.T) {
	w := newWeb(t, serve("hello", ""))
	b := newBench(t, w)
	g, err := b.get(w.URL+"/dir/a%20b.txt?x=1#part", nil)
	require.NoError(t, err)
	require.Equal(t, "a b.txt", g.name)
	require.Equal(t, "hello", g.content)
	require.Equal(t, os.FileMode(0o600), g.mode)
	require.Equal(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), g.time)
	require.Equal(t, digest.FromString("hello").String(), g.key.Pin)
}

func TestTheOpSaysHowTheFileIsPutDown(t *testing.T) {
	w := newWeb(t, serve("x", ""))
	b := newBench(t, w)
	g, err := b.get(w.URL+"/a", map[string]string{
		pb.AttrHTTPFilename: "f", pb.AttrHTTPPerm: "04751", pb.AttrHTTPUID: "7", pb.AttrHTTPGID: "8",
	})
	require.NoError(t, err)
	require.Equal(t, "f", g.name)
	require.Equal(t, os.ModeSetuid|0o751, g.mode)
	require.Equal(t, uint32(7), g.uid)
}

func TestNamesOfFiles(t *testing.T) {
	for disposition, want := range map[string]string{
		"":                                                 "url",
		`attachment; filename="given.tgz"`:                 "given.tgz",
		`attachment; filename="../../up.tgz"`:              "up.tgz",
		`attachment; filename=".."`:                        "url",
		`attachment; filename*=UTF-8''n%C3%A4me`:           "näme",
		`attachment; filename*=UTF-8''a%2Fb%00c`:           "url",
		`attachment; filename=` + strings.Repeat("n", 300): "url",
	} {
		w := newWeb(t, func(rw nethttp.ResponseWriter, r *nethttp.Request) {
			rw.Header().Set("Content-Disposition", disposition)
			serve("x", "")(rw, r)
		})
		g, err := newBench(t, w).get(w.URL+"/some/url", nil)
		require.NoError(t, err, disposition)
		require.Equal(t, want, g.name, disposition)
	}
	for path, want := range map[string]string{"": "download", "/": "download", "/d/": "d", "/d/..": "download", "/%00": "download"} {
		id, err := parse("http://h"+path, nil)
		require.NoError(t, err)
		require.Equal(t, want, id.name(""), path)
	}
}

func TestAnUnchangedFileIsNotFetchedAgain(t *testing.T) {
	gone := errors.New("no head")
	for name, c := range map[string]struct {
		handle nethttp.HandlerFunc
		want   []string
	}{
		"by its tag":           {serve("v1", `"t"`), []string{"HEAD"}},
		"by a weak tag":        {serve("v1", `W/"t"`), []string{"HEAD"}},
		"by its time and size": {serve("v1", ""), []string{"HEAD"}},
		"by its tag where requests without a body are not served": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodHead {
				nethttp.Error(w, gone.Error(), nethttp.StatusMethodNotAllowed)
				return
			}
			serve("v1", `"t"`)(w, r)
		}, []string{"HEAD", "GET"}},
		"by the only tag that was named": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Header.Get("If-None-Match") == `"t"` {
				w.WriteHeader(nethttp.StatusNotModified)
				return
			}
			serve("v1", `"t"`)(w, r)
		}, []string{"HEAD"}},
		"by the tag of the answer": {func(w nethttp.ResponseWriter, r *nethttp.Request) {
			r.Header.Del("If-None-Match")
			serve("v1", `"t"`)(w, r)
		}, []string{"HEAD"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t, c.handle)
			b := newBench(t, w)
			first, err := b.get(w.URL+"/f", nil)
			require.NoError(t, err)
			require.Equal(t, []string{"GET"}, w.take())
			second, err := b.get(w.URL+"/f", nil)
			require.NoError(t, err)
			require.Equal(t, c.want, w.take())
			require.Equal(t, first, second)
		})
	}
}

func TestAChangedFileIsFetchedAgain(t *testing.T) {
	for name, c := range map[string]struct{ before, after nethttp.HandlerFunc }{
		"with another tag":                       {serve("v1", `"1"`), serve("v2", `"2"`)},
		"without tags and times":                 {plain("v1"), plain("v2")},
		"changed just now":                       {fresh("v1"), fresh("v2")},
		"of another size":                        {serve("v1", ""), serve("version 2", "")},
		"with a confirmation nobody understands": {serve("v1", ""), unmodified("v2")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t, c.before)
			b := newBench(t, w)
			first, err := b.get(w.URL+"/f", nil)
			require.NoError(t, err)
			w.set(c.after)
			second, err := b.get(w.URL+"/f", nil)
			if name == "with a confirmation nobody understands" {
				require.EqualError(t, err, "invalid response status 304")
				return
			}
			require.NoError(t, err)
			require.Equal(t, "v1", first.content)
			require.NotEqual(t, "v1", second.content)
			require.NotEqual(t, first.key, second.key)
		})
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

func TestABuildSeesOneContentThroughout(t *testing.T) {
	w := newWeb(t, plain("v1"))
	b := newBench(t, w)
	memo := &source.Memo{}
	first, err := b.fetch(b.instance(w.URL+"/f", nil, memo))
	require.NoError(t, err)
	w.set(plain("v2"))
	w.take()
	other, err := b.fetch(b.instance(w.URL+"/f", map[string]string{pb.AttrHTTPPerm: "0644"}, memo))
	require.NoError(t, err)
	require.Equal(t, "v1", other.content)
	require.Equal(t, os.FileMode(0o644), other.mode)
	require.NotEqual(t, first.key.Value, other.key.Value)
	require.Empty(t, w.take(), "the server is asked once")

	i := b.instance(w.URL+"/f", nil, memo)
	_, _, err = i.Key(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, b.src.cfg.Cache.Drop(t.Context(), first.id, other.id))
	_, err = i.Fetch(t.Context())
	var mismatch *MismatchError
	require.ErrorAs(t, err, &mismatch, "a file that moved on is not taken for the one of the key")
	w.set(plain("v1"))
	_, err = b.fetch(i)
	require.NoError(t, err)
}

func TestAChecksumIsTheKey(t *testing.T) {
	w := newWeb(t, plain("hello"))
	b := newBench(t, w)
	attrs := map[string]string{pb.AttrHTTPChecksum: digest.FromString("hello").String()}
	i := b.instance(w.URL+"/f", attrs, nil)
	key, done, err := i.Key(t.Context(), 0)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, attrs[pb.AttrHTTPChecksum], key.Pin)
	require.Empty(t, w.take(), "nobody is asked for a key")
	_, err = b.fetch(i)
	require.NoError(t, err)
	require.Equal(t, []string{"GET"}, w.take())
	g, err := b.get(w.URL+"/f", attrs)
	require.NoError(t, err)
	require.Equal(t, "hello", g.content)
	require.Empty(t, w.take(), "what is here is not fetched")

	long := fmt.Sprintf("sha512:%x", sha512.Sum512([]byte("hello")))
	_, err = b.get(w.URL+"/f", map[string]string{pb.AttrHTTPChecksum: long})
	require.NoError(t, err)

	other := digest.FromString("other").String()
	_, err = b.get(w.URL+"/f", map[string]string{pb.AttrHTTPChecksum: other})
	require.EqualError(t, err, "digest mismatch "+attrs[pb.AttrHTTPChecksum]+": "+other)
	usage, err := b.src.cfg.Cache.DiskUsage(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, usage, 2, "what did not match is gone")
}

func TestHeaders(t *testing.T) {
	w := newWeb(t, plain("x"))
	b := newBench(t, w)
	_, err := b.get(w.URL+"/f", map[string]string{
		pb.AttrHTTPHeaderPrefix + "accept": "text/x", pb.AttrHTTPHeaderPrefix + "user-agent": "me",
		pb.AttrHTTPHeaderPrefix + "x-other": "dropped",
	})
	require.NoError(t, err)
	require.Equal(t, "text/x", w.asked[0].Get("Accept"))
	require.Equal(t, "me", w.asked[0].Get("User-Agent"))
	require.Empty(t, w.asked[0].Get("X-Other"))
	_, err = b.get(w.URL+"/g", map[string]string{pb.AttrHTTPHeaderPrefix + "user-agent": "a\r\nX-Other: b"})
	require.Error(t, err)
}

// A checksum is no secret: who has it and not the credentials gets nothing that was fetched with
// them.
func TestWhatCredentialsOpenedIsForThoseWhoHaveThem(t *testing.T) {
	w := newWeb(t, func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		if r.Header.Get("Authorization") != "Bearer right" {
			rw.WriteHeader(nethttp.StatusUnauthorized)
			return
		}
		serve("private", `"t"`)(rw, r)
	})
	host := strings.Split(w.Listener.Addr().String(), ":")[0]
	b := newBench(t, w, secrets.NewProvider(memory{"HTTP_AUTH_TOKEN_" + host: "right"}))
	mine, nobody := b.session, sessiontest.Join(t, b.src.cfg.Sessions, nil).ID()
	liar := sessiontest.Join(t, b.src.cfg.Sessions, nil, secrets.NewProvider(memory{"HTTP_AUTH_TOKEN_" + host: "wrong"})).ID()
	sum := map[string]string{pb.AttrHTTPChecksum: digest.FromString("private").String()}
	first, err := b.get(w.URL+"/f", sum)
	require.NoError(t, err)
	again, err := b.get(w.URL+"/f", sum)
	require.NoError(t, err)
	require.Equal(t, first, again)
	_, err = b.get(w.URL+"/f", map[string]string{pb.AttrHTTPChecksum: digest.FromString("other").String()})
	require.ErrorContains(t, err, "digest mismatch")

	for _, session := range []string{nobody, liar} {
		b.session = session
		for _, attrs := range []map[string]string{nil, sum} {
			i := b.instance(w.URL+"/f", attrs, nil)
			key, _, err := i.Key(t.Context(), 0)
			if err == nil {
				require.NotEqual(t, first.key.Value, key.Value)
				_, err = i.Fetch(t.Context())
			}
			require.EqualError(t, err, "invalid response status 401")
		}
	}
	b.session = mine
	_, err = b.get(w.URL+"/f", sum)
	require.NoError(t, err)

	// Nor does it open what is public at another url.
	public := newWeb(t, plain("public"))
	b = newBench(t, public)
	sum = map[string]string{pb.AttrHTTPChecksum: digest.FromString("public").String()}
	there, err := b.get(public.URL+"/f", sum)
	require.NoError(t, err)
	elsewhere, _, err := b.instance(public.URL+"/other/f", sum, nil).Key(t.Context(), 0)
	require.NoError(t, err)
	require.NotEqual(t, there.key.Value, elsewhere.Value)
}

type memory map[string]string

func (m memory) Get(_ context.Context, id string) ([]byte, error) {
	if v, ok := m[id]; ok {
		return []byte(v), nil
	}
	return nil, &secrets.NotFoundError{ID: id}
}

func TestCredentials(t *testing.T) {
	w := newWeb(t, plain("x"))
	host := strings.Split(w.Listener.Addr().String(), ":")[0]
	for name, c := range map[string]struct {
		secrets memory
		attr    string
		want    string
	}{
		"none":               {nil, "", ""},
		"named by the op":    {memory{"mine": "Basic abc", "HTTP_AUTH_TOKEN_" + host: "t"}, "mine", "Basic abc"},
		"of the host":        {memory{"HTTP_AUTH_HEADER_" + host: "Basic h"}, "", "Basic h"},
		"a token wins":       {memory{"HTTP_AUTH_HEADER_" + host: "Basic h", "HTTP_AUTH_TOKEN_" + host: "t"}, "", "Bearer t"},
		"of some other host": {memory{"HTTP_AUTH_TOKEN_other": "t"}, "", ""},
	} {
		b := newBench(t, w, secrets.NewProvider(c.secrets))
		attrs := map[string]string{}
		if c.attr != "" {
			attrs[pb.AttrHTTPAuthHeaderSecret] = c.attr
		}
		w.take()
		_, err := b.get(w.URL+"/f", attrs)
		require.NoError(t, err, name)
		require.Equal(t, c.want, w.asked[0].Get("Authorization"), name)
	}
	_, err := newBench(t, w).get(w.URL+"/f", map[string]string{pb.AttrHTTPAuthHeaderSecret: "absent"})
	require.ErrorContains(t, err, "failed to retrieve HTTP auth secret absent")
}

func TestRedirects(t *testing.T) {
	target := newWeb(t, plain("x"))
	w := newWeb(t, nil)
	host := strings.Split(w.Listener.Addr().String(), ":")[0]
	to := func(u string) nethttp.HandlerFunc {
		return func(rw nethttp.ResponseWriter, r *nethttp.Request) { nethttp.Redirect(rw, r, u, nethttp.StatusFound) }
	}
	// Both servers are known to the client: httptest uses one certificate for all.
	b := newBench(t, w, secrets.NewProvider(memory{"HTTP_AUTH_TOKEN_" + host: "t"}))

	w.set(to(target.URL + "/elsewhere"))
	u := strings.Replace(w.URL, "https://", "https://user:pass@", 1)
	g, err := b.get(u+"/start?token=secret", nil)
	require.NoError(t, err)
	require.Equal(t, "start", g.name, "the name is that of the url")
	require.Equal(t, "Bearer t", w.asked[0].Get("Authorization"))
	require.Empty(t, target.asked[0].Get("Authorization"), "credentials stay with their host")
	require.Empty(t, target.asked[0].Get("Referer"))

	w.set(func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/second" {
			plain("y")(rw, r)
			return
		}
		to("/second")(rw, r)
	})
	w.take()
	_, err = b.get(w.URL+"/first", nil)
	require.NoError(t, err)
	require.Equal(t, "Bearer t", w.asked[1].Get("Authorization"), "the host is the same")

	for _, loc := range []string{"/round", "file:///etc/passwd", "http://buildkit-session/abc", "gopher://x/"} {
		w.set(to(loc))
		_, err = b.get(w.URL+"/round", nil)
		require.Error(t, err, loc)
	}
}

func TestBadServers(t *testing.T) {
	hang := func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		_, _ = io.WriteString(rw, "x")
		rw.(nethttp.Flusher).Flush()
		<-r.Context().Done()
	}
	const stall = 300 * time.Millisecond
	for name, c := range map[string]struct {
		handle nethttp.HandlerFunc
		want   string
	}{
		"no such file": {nethttp.NotFound, "invalid response status 404"},
		"a part that nobody asked for": {func(rw nethttp.ResponseWriter, r *nethttp.Request) {
			r.Header.Set("Range", "bytes=1-2")
			serve("hello", "")(rw, r)
		}, "invalid response status 206"},
		"less than it says": {func(rw nethttp.ResponseWriter, _ *nethttp.Request) {
			rw.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(rw, "short")
		}, "unexpected EOF"},
		"less than it announces in pieces": {func(rw nethttp.ResponseWriter, _ *nethttp.Request) {
			_, _ = io.WriteString(rw, "short")
			rw.(nethttp.Flusher).Flush()
			panic(nethttp.ErrAbortHandler)
		}, "unexpected EOF"},
		"less than was compressed": {func(rw nethttp.ResponseWriter, _ *nethttp.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"))
		}, "unexpected EOF"},
		"nothing at all":             {func(nethttp.ResponseWriter, *nethttp.Request) { panic(nethttp.ErrAbortHandler) }, "EOF"},
		"silent before the answer":   {func(_ nethttp.ResponseWriter, r *nethttp.Request) { <-r.Context().Done() }, "the server sent nothing for 300ms"},
		"silent in the middle":       {hang, "the server sent nothing for 300ms"},
		"a header that does not end": {func(rw nethttp.ResponseWriter, _ *nethttp.Request) { rw.Header().Set("X", strings.Repeat("x", 2<<20)) }, "headers exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t, c.handle)
			b := newBench(t, w)
			if strings.HasPrefix(name, "silent") {
				b.src.cfg.Stall = stall
			}
			if tr, ok := b.src.cfg.Transport.(*nethttp.Transport); ok {
				tr.MaxResponseHeaderBytes = maxHeader
			}
			u := strings.Replace(w.URL, "https://", "https://user:pass@", 1)
			_, err := b.get(u+"/f", nil)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "pass")
			require.NotContains(t, err.Error(), "user")
			if !strings.HasPrefix(c.want, "invalid response") {
				require.ErrorContains(t, err, "/f", "the url is named")
			}
			usage, err := b.src.cfg.Cache.DiskUsage(t.Context(), nil)
			require.NoError(t, err)
			require.Empty(t, usage)
		})
	}
	_, err := newBench(t, nil).get("http://user:pass@127.0.0.1:1/x", nil)
	require.EqualError(t, err, `Get "http://xxxxx@127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused`)
}

func TestASlowServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	const stall = 3 * time.Second
	w := newWeb(t, func(rw nethttp.ResponseWriter, _ *nethttp.Request) {
		pace := time.NewTicker(stall / 6)
		defer pace.Stop()
		for range 8 { // longer than the stall all in all
			_, _ = io.WriteString(rw, "x")
			rw.(nethttp.Flusher).Flush()
			<-pace.C
		}
	})
	b := newBench(t, w)
	b.src.cfg.Stall = stall
	g, err := b.get(w.URL+"/f", nil)
	require.NoError(t, err)
	require.Equal(t, "xxxxxxxx", g.content)
}

func TestACancelledFetchLeavesNothing(t *testing.T) {
	started := make(chan struct{})
	w := newWeb(t, func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		rw.(nethttp.Flusher).Flush()
		close(started)
		<-r.Context().Done()
	})
	b := newBench(t, w)
	b.src.cfg.Stall = time.Minute
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the client went")
	go func() { <-started; cancel(stop) }()
	_, _, err := b.instance(w.URL+"/f", nil, &source.Memo{}).Key(ctx, 0)
	require.ErrorIs(t, err, stop)
}

func TestALargeFileIsNotHeldInMemory(t *testing.T) {
	const size = 64 << 20
	part := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	w := newWeb(t, func(rw nethttp.ResponseWriter, _ *nethttp.Request) {
		for range size / len(part) {
			_, _ = rw.Write(part)
		}
	})
	b := newBench(t, w)
	i := b.instance(w.URL+"/f", nil, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := i.Key(t.Context(), 0)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(size/4))
}

func TestAStreamOfTheClientIsAFile(t *testing.T) {
	p := upload.NewProvider()
	b := newBench(t, nil, p)
	u := p.Add(io.NopCloser(strings.NewReader("from stdin")))
	memo := &source.Memo{}
	g, err := b.fetch(b.instance(u, map[string]string{pb.AttrHTTPFilename: "context"}, memo))
	require.NoError(t, err)
	require.Equal(t, "context", g.name)
	require.Equal(t, "from stdin", g.content)
	again, err := b.fetch(b.instance(u, map[string]string{pb.AttrHTTPFilename: "context"}, memo))
	require.NoError(t, err, "within the build it can be used again")
	require.Equal(t, g, again)
	_, err = b.get("http://buildkit-session/nosuch", nil)
	require.ErrorContains(t, err, "no upload")
}

func TestResolveHTTP(t *testing.T) {
	w := newWeb(t, serve("hello", `"t"`))
	b := newBench(t, w)
	resolve := func(attrs map[string]string, sum *gatewaypb.ChecksumRequest) (*gatewaypb.ResolveSourceHTTPResponse, error) {
		return b.src.ResolveHTTP(t.Context(), b.instance(w.URL+"/f", attrs, nil).id, sum, source.Env{})
	}
	meta, err := resolve(nil, nil)
	require.NoError(t, err)
	require.Equal(t, digest.FromString("hello").String(), meta.GetChecksum())
	require.Equal(t, "f", meta.GetFilename())
	require.Equal(t, int64(1767225600), meta.GetLastModified().GetSeconds())
	require.Nil(t, meta.GetChecksumResponse())

	meta, err = resolve(nil, &gatewaypb.ChecksumRequest{Algo: gatewaypb.ChecksumRequest_CHECKSUM_ALGO_SHA512, Suffix: []byte("++")})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("sha512:%x", sha512.Sum512([]byte("hello++"))), meta.GetChecksumResponse().GetDigest())
	require.Equal(t, []byte("++"), meta.GetChecksumResponse().GetSuffix())

	_, err = resolve(nil, &gatewaypb.ChecksumRequest{Suffix: make([]byte, maxSuffix+1)})
	require.Error(t, err)
	_, err = resolve(nil, &gatewaypb.ChecksumRequest{Algo: 9})
	require.Error(t, err)

	other := digest.FromString("other").String()
	_, err = resolve(map[string]string{pb.AttrHTTPChecksum: other}, nil)
	require.EqualError(t, err, fmt.Sprintf("digest mismatch for %s/f: %s (expected: %s)", w.URL, digest.FromString("hello"), other))
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		url   string
		attrs map[string]string
	}{
		"no host":                {"http:///x", nil},
		"no url":                 {"http://h:port/x", nil},
		"a bad escape":           {"https://user:p%zz@h/", nil},
		"a name with a folder":   {"http://h/", map[string]string{pb.AttrHTTPFilename: "a/b"}},
		"a name of the parent":   {"http://h/", map[string]string{pb.AttrHTTPFilename: ".."}},
		"no checksum":            {"http://h/", map[string]string{pb.AttrHTTPChecksum: "abc"}},
		"no mode":                {"http://h/", map[string]string{pb.AttrHTTPPerm: "rwx"}},
		"a mode of other bits":   {"http://h/", map[string]string{pb.AttrHTTPPerm: "0100644"}},
		"no user":                {"http://h/", map[string]string{pb.AttrHTTPUID: "root"}},
		"a user that is none":    {"http://h/", map[string]string{pb.AttrHTTPUID: "4294967295"}},
		"a negative group":       {"http://h/", map[string]string{pb.AttrHTTPGID: "-1"}},
		"a signature":            {"http://h/", map[string]string{pb.AttrHTTPSigPubKey: "k"}},
		"a signature of nothing": {"http://h/", map[string]string{pb.AttrHTTPSigSignature: "s"}},
	} {
		_, err := parse(c.url, c.attrs)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "p%zz", name)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("http://user:pass@host:80/a/b?q#f", "name", "0644", "1")
	f.Add("https://[::1]/%2e%2e/%00", "", "", "")
	f.Add("http://buildkit-session/abc", "..", "-1", "4294967295")
	f.Fuzz(func(t *testing.T, u, name, perm, uid string) {
		id, err := parse(u, map[string]string{pb.AttrHTTPFilename: name, pb.AttrHTTPPerm: perm, pb.AttrHTTPUID: uid})
		if err != nil {
			return
		}
		for _, d := range []string{"", name, u} {
			require.True(t, tree.IsFileName(id.name(d)))
		}
		shown, err := url.Parse(id.String())
		if err == nil && shown.User != nil {
			require.Equal(t, "xxxxx", shown.User.String())
		}
	})
}

func FuzzDisposition(f *testing.F) {
	for _, s := range []string{"", "inline", `attachment; filename="a"`, "a; filename*=UTF-8''%e2%82", "a; filename*0=x; filename*1=y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		id := &Identifier{URL: &url.URL{Path: "/"}}
		require.True(t, tree.IsFileName(id.name(dispositionName(header))))
	})
}
