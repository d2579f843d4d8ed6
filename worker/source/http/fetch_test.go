//go:build linux

package http

import (
	"bytes"
	"context"
	"errors"
	"io"
	nethttp "net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/session/upload"
	"github.com/openbuildkit/buildkit/worker/source"
)

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
