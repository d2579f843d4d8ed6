package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// proxy stands in front of a registry and spoils what it answers.
type proxy struct {
	host string
	// spoil changes an answer that carries a layer, or, where manifests is true, a manifest. The
	// data is that of the whole body.
	spoil atomic.Pointer[spoiler]
	// ranges counts the requests for a part of something.
	ranges atomic.Int32
}

type spoiler struct {
	manifests bool
	change    func(w http.ResponseWriter, r *http.Response, data []byte)
}

// largeBlob tells a layer from a configuration.
const largeBlob = 64 << 10

func startProxy(t *testing.T, registry *harness.Registry) *proxy {
	t.Helper()
	p := &proxy{}
	target, err := url.Parse("http://" + registry.Host)
	require.NoError(t, err)
	plain := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spoil := p.spoil.Load()
		if r.Header.Get("Range") != "" {
			p.ranges.Add(1)
		}
		manifest := strings.Contains(r.URL.Path, "/manifests/")
		if spoil == nil || r.Method != http.MethodGet || manifest != spoil.manifests {
			plain.ServeHTTP(w, r)
			return
		}
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target.String()+r.URL.Path, nil)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		request.Header = r.Header.Clone()
		request.Header.Del("Range")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if response.StatusCode != http.StatusOK || (!manifest && len(data) < largeBlob) {
			plain.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
		w.Header().Set("Docker-Content-Digest", response.Header.Get("Docker-Content-Digest"))
		spoil.change(w, response, data)
	}))
	t.Cleanup(server.Close)
	p.host = strings.TrimPrefix(server.URL, "http://")
	return p
}

// cut sends a part of the data and drops the connection.
func cut(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	_, _ = w.Write(data[:n])
	panic(http.ErrAbortHandler)
}

func TestARegistryThatAnswersWrongSpoilsNothing(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	p := startProxy(t, registry)
	for name, spoil := range map[string]spoiler{
		"a layer with other bytes": {change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
			data[len(data)/2] ^= 1
			_, _ = w.Write(data)
		}},
		"a layer that is a whole other file": {change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
			_, _ = w.Write(bytes.Repeat([]byte{7}, len(data)))
		}},
		"a layer that ends early, and says so": {change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
			_, _ = w.Write(data[:len(data)/2])
		}},
		"a layer that is too long": {change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
			_, _ = w.Write(append(data, make([]byte, 1<<20)...))
		}},
		"a connection that breaks in the middle of a layer": {change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
			cut(w, data, len(data)/2)
		}},
		"no layer": {change: func(w http.ResponseWriter, _ *http.Response, _ []byte) {
			w.WriteHeader(http.StatusNotFound)
		}},
		"a server that fails": {change: func(w http.ResponseWriter, _ *http.Response, _ []byte) {
			w.WriteHeader(http.StatusInternalServerError)
		}},
		"a manifest that is no JSON": {manifests: true, change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
			_, _ = w.Write(bytes.Repeat([]byte("{"), len(data)))
		}},
		"a manifest with other bytes": {manifests: true, change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
			_, _ = w.Write(append(data, ' '))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			random := make([]byte, 4*largeBlob)
			for i := range random {
				random[i] = byte(rand.Uint32()) //nolint:gosec // any bytes that do not compress
			}
			repository := fmt.Sprintf("spoiled/%d:latest", rand.Uint32()) //nolint:gosec // a name that is new
			registry.Push(t, repository, image(t, regular("random", string(random))))
			dir := dockerfile(t, "FROM "+p.host+"/"+repository, "RUN wc -c /random")

			p.spoil.Store(&spoil)
			result := launchBuild(t, d, dir).wait(t)
			p.spoil.Store(nil)
			require.Equal(t, 1, result.Code, result.Stderr)
			errorMessage(t, result)
			d.RequireIdle(t)

			require.NotEmpty(t, ran(d.Build(t, dir)), "with the registry as it should be")
		})
	}
	requirePruned(t, d)
}

// A pull that is slow, or breaks off once, is none that fails.
func TestAPullGoesOnAfterABrokenConnection(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	p := startProxy(t, registry)
	random := make([]byte, 8<<20)
	for i := range random {
		random[i] = byte(rand.Uint32()) //nolint:gosec // any bytes that do not compress
	}
	registry.Push(t, "library/large:latest", image(t, regular("random", string(random))))
	var broken atomic.Int32
	p.spoil.Store(&spoiler{change: func(w http.ResponseWriter, _ *http.Response, data []byte) {
		if broken.Add(1) == 1 {
			cut(w, data, len(data)/2)
		}
		_, _ = w.Write(data)
	}})
	d.Build(t, dockerfile(t, "FROM "+p.host+"/library/large", "RUN wc -c /random"))
	require.Positive(t, broken.Load())
}

func TestACancelledPullLetsGoOfTheRegistry(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	p := startProxy(t, registry)
	begun, gone := make(chan struct{}, 8), make(chan struct{}, 8)
	p.spoil.Store(&spoiler{change: func(w http.ResponseWriter, r *http.Response, data []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		begun <- struct{}{}
		<-r.Request.Context().Done()
		gone <- struct{}{}
	}})
	c := launchBuild(t, d, dockerfile(t, "FROM "+p.host+"/library/busybox", "RUN true"))
	<-begun
	c.signal(t, syscall.SIGINT)
	require.Equal(t, 1, c.waitWithin(t, 15*time.Second).Code)
	select {
	case <-gone:
	case <-time.After(15 * time.Second):
		t.Fatal("the daemon still pulls for a client that is gone")
	}
	p.spoil.Store(nil)
	d.Build(t, dockerfile(t, "FROM "+p.host+"/library/busybox", "RUN true"))
}

// What was fetched before a kill is gone on with, and does not stay.
func TestAPullSucceedsAfterTheDaemonWasKilled(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	p := startProxy(t, registry)
	random := make([]byte, 8<<20)
	for i := range random {
		random[i] = byte(rand.Uint32()) //nolint:gosec // any bytes that do not compress
	}
	registry.Push(t, "library/large:latest", image(t, regular("random", string(random))))
	half := make(chan struct{}, 8)
	p.spoil.Store(&spoiler{change: func(w http.ResponseWriter, r *http.Response, data []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		half <- struct{}{}
		<-r.Request.Context().Done()
	}})
	dir := dockerfile(t, "FROM "+p.host+"/library/large", "RUN wc -c /random")
	c := launchBuild(t, d, dir)
	<-half
	// What was sent is in the file of the transfer soon; nobody says when.
	require.Eventually(t, func() bool {
		parts, _ := filepath.Glob(filepath.Join(d.Root, "openbuildkit", "cache", "content", "ingest", "*", "data"))
		return slices.ContainsFunc(parts, func(part string) bool {
			st, err := os.Stat(part)
			return err == nil && st.Size() > 2<<20
		})
	}, 30*time.Second, 20*time.Millisecond)
	d.Kill(t)
	require.Equal(t, 1, c.wait(t).Code)

	p.spoil.Store(nil)
	p.ranges.Store(0)
	d.Start(t)
	d.Build(t, dir)
	require.NotZero(t, p.ranges.Load(), "what is here is not fetched again")
	requirePruned(t, d)
}
