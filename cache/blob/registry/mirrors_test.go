package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
)

// No mirror, whatever it does, fails what the registry itself can serve.
func TestMirrorsThatFail(t *testing.T) {
	origin := registrytest.Start(t, registrytest.Options{})
	cs := newContent(t)
	desc := cs.image(2)
	ref := origin.Addr + "/a/b:1"
	require.NoError(t, registry.New(registry.Config{}).Repository(parse(t, ref), nil).Push(t.Context(), desc, cs, event.Scope{}))

	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	// served answers with what the registry has, changed.
	served := func(change func([]byte) []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
			dgst := desc.Digest
			if d, err := digest.Parse(name); err == nil {
				dgst = d
			}
			d := desc
			d.Digest, d.Size = dgst, 0
			data, err := content.ReadBlob(r.Context(), cs, d)
			if err != nil {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Docker-Content-Digest", dgst.String())
			w.Header().Set("Content-Type", desc.MediaType)
			data = change(data)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			if r.Method == http.MethodGet {
				_, _ = w.Write(data)
			}
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"has nothing":    status(http.StatusNotFound),
		"lets nobody in": status(http.StatusUnauthorized),
		"refuses":        status(http.StatusForbidden),
		"is broken":      status(http.StatusInternalServerError),
		"is busy for an hour": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"answers with a web page": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>welcome</html>") },
		"names no digest":         func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Docker-Content-Digest", "sha256:zz") },
		"drops connections":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"speaks no HTTP": func(w http.ResponseWriter, _ *http.Request) {
			if h, ok := w.(http.Hijacker); ok {
				conn, _, _ := h.Hijack()
				_, _ = io.WriteString(conn, "220 mail.test\r\n")
				_ = conn.Close()
			}
		},
		"wants a token of a server that is away": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://127.0.0.1:1/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"serves other bytes":    served(func(b []byte) []byte { c := bytes.Clone(b); c[len(c)/2] ^= 1; return c }),
		"serves more bytes":     served(func(b []byte) []byte { return append(bytes.Clone(b), "more"...) }),
		"serves fewer bytes":    served(func(b []byte) []byte { return b[:len(b)/2] }),
		"serves the right ones": served(func(b []byte) []byte { return b }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				handler(w, r)
			}))
			t.Cleanup(mirror.Close)
			c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{
				origin.Addr: {Mirrors: []string{strings.TrimPrefix(mirror.URL, "http://")}},
			}})
			repo := c.Repository(parse(t, ref), nil)
			got, err := repo.Resolve(t.Context())
			require.NoError(t, err)
			require.Equal(t, desc.Digest, got.Digest)
			data, err := repo.FetchManifest(t.Context(), got, limit)
			require.NoError(t, err)
			require.Equal(t, desc.Digest, digest.FromBytes(data))
			to, src := newContent(t), repo.Source(event.Scope{})
			for _, layer := range cs.layers(desc) {
				whole, err := blob.Transfer(t.Context(), to, layer, src)
				require.NoError(t, err)
				require.True(t, whole)
				got, err := content.ReadBlob(t.Context(), to, layer)
				require.NoError(t, err)
				require.Equal(t, layer.Digest, digest.FromBytes(got))
				info, err := to.Info(t.Context(), layer.Digest)
				require.NoError(t, err)
				require.Equal(t, []string{origin.Addr + "/a/b"}, blob.Origins(info.Labels))
			}
			require.Positive(t, asked.Load())
			require.Less(t, asked.Load(), int32(10))
		})
	}
}

func TestTheErrorOfMirrorsAndRegistryIsTheMostTelling(t *testing.T) {
	empty := registrytest.Start(t, registrytest.Options{})
	resolve := func(origin string, mirrors ...string) error {
		c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{origin: {Mirrors: mirrors}}})
		_, err := c.Repository(parse(t, origin+"/a/b:1"), nil).Resolve(t.Context())
		return err
	}
	require.ErrorContains(t, resolve("localhost:1", empty.Addr), "localhost:1/a/b:1: not found", "the mirror said so")
	require.ErrorContains(t, resolve("localhost:1", "localhost:2"), `"http://localhost:1/v2/`, "nobody said anything")
	require.ErrorContains(t, resolve(empty.Addr, "localhost:2"), empty.Addr+"/a/b:1: not found")
}

func TestAMirrorIsNotBlamedForATransferThatNobodyWants(t *testing.T) {
	var asked atomic.Int32
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			<-r.Context().Done()
			return
		}
		_, _ = w.Write(payload)
	}))
	t.Cleanup(mirror.Close)
	c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{
		"localhost:1": {Mirrors: []string{strings.TrimPrefix(mirror.URL, "http://")}},
	}})
	repo := c.Repository(parse(t, "localhost:1/a/b:1"), nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for asked.Load() == 0 {
			runtime.Gosched()
		}
		cancel()
	}()
	rc, err := repo.Source(event.Scope{}).Open(ctx, payloadDesc(), 0)
	require.NoError(t, err)
	_, err = io.ReadAll(rc)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, rc.Close())
	require.Equal(t, payload, readLayer(t, repo, payloadDesc(), 0))
}
