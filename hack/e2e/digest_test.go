package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// forger is a registry that has the manifest and the configuration of somebody else's image, and
// none of its layers.
type forger struct {
	*httptest.Server
	// answer answers requests for layers.
	answer http.HandlerFunc

	mu sync.Mutex
	// seen are the headers that might hold credentials.
	seen []string
}

func startForger(t *testing.T, documents map[string][]byte, answer http.HandlerFunc) *forger {
	t.Helper()
	f := &forger{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r.Header.Get("Authorization"))
		f.mu.Unlock()
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		data, ok := documents[name]
		switch {
		case strings.HasSuffix(r.URL.Path, "/v2/"):
		case strings.Contains(r.URL.Path, "/blobs/") && !ok:
			f.answer(w, r)
		case ok && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			}
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			if r.Method == http.MethodGet {
				_, _ = w.Write(data)
			}
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

// Who knows all digests of a private image that the daemon has unpacked, and no more of it, gets
// nothing of what is in it, whatever the registry says that they name.
func TestTheDigestsOfAPrivateImageAreNoKeyToIt(t *testing.T) {
	s, tokens := private(t)
	d, _ := startWithRegistry(t, harness.DaemonOptions{})
	const secret = "known only to ann"
	base, context := s.Addr+"/ann/base:1", "--registry-auth-tlscontext=host="+s.Addr+",ca="+tokens.CA
	pushAs(t, d, "ann", s.Addr, base, secret+"\n", context)
	requirePruned(t, d)

	lay := filepath.Join(t.TempDir(), "lay")
	ann := prepare(t, d, harness.DockerfileArgs(dockerfile(t, "FROM "+base), context, "--output=type=oci,tar=false,dest="+lay)...)
	ann.login(t, s.Addr, "ann")
	ann.start(t)
	require.Zero(t, ann.wait(t).Code)
	ann = prepare(t, d, harness.DockerfileArgs(dockerfile(t, "FROM "+base, "RUN cat /private > /copy"), context)...)
	ann.login(t, s.Addr, "ann")
	ann.start(t)
	require.Zero(t, ann.wait(t).Code)

	blob := func(dgst digest.Digest) []byte { return []byte(read(t, lay, "blobs", "sha256", dgst.Encoded())) }
	var index ocispec.Index
	require.NoError(t, json.Unmarshal([]byte(read(t, lay, "index.json")), &index))
	top := index.Manifests[0].Digest
	var manifest ocispec.Manifest
	require.NoError(t, json.Unmarshal(blob(top), &manifest))
	documents := map[string][]byte{
		"1": blob(top), top.String(): blob(top), manifest.Config.Digest.String(): blob(manifest.Config.Digest),
	}
	sizes := map[string]int64{}
	for _, l := range manifest.Layers {
		sizes[l.Digest.String()] = l.Size
	}
	size := func(r *http.Request) int64 { return sizes[filepath.Base(r.URL.Path)] }

	for name, answer := range map[string]http.HandlerFunc{
		"has none of the layers": http.NotFound,
		"only says that it has the layers": func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(size(r)))
		},
		"sends other bytes": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, size(r))))
		},
		"takes part of the layers for the whole": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", size(r)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte{0x1f})
		},
		"leads to the registry that has the layers": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+s.Addr+"/v2/ann/base/blobs/"+filepath.Base(r.URL.Path), http.StatusTemporaryRedirect)
		},
		"asks for a token of that registry": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="registry.test",scope="repository:ann/base:pull"`, tokens.URL))
			w.WriteHeader(http.StatusUnauthorized)
		},
	} {
		t.Run("a registry that "+name, func(t *testing.T) {
			f := startForger(t, documents, answer)
			forged := strings.TrimPrefix(f.URL, "http://") + "/stolen:1"
			out := filepath.Join(t.TempDir(), "out")
			for _, args := range [][]string{
				harness.DockerfileArgs(dockerfile(t, "FROM "+forged, "RUN cat /private > /copy"), toLocal(out)),
				harness.DockerfileArgs(dockerfile(t, "FROM "+forged+"@"+top.String(), "RUN cat /private"), toLocal(out)),
				harness.DockerfileArgs(dockerfile(t, "FROM scratch", "COPY --from="+forged+" /private /"), toLocal(out)),
				harness.DockerfileArgs(dockerfile(t, "FROM "+forged), "--output=type=oci,dest="+out),
				harness.DockerfileArgs(dockerfile(t, "FROM "+forged), "--output=type=tar,dest="+out),
				harness.DockerfileArgs(dockerfile(t, "FROM "+forged), toRegistry(s.Addr+"/bob/mine:1"), context),
			} {
				bob := prepare(t, d, args...)
				bob.login(t, s.Addr, "bob")
				bob.start(t)
				r := bob.wait(t)
				require.Equal(t, 1, r.Code, "%s\n%s", strings.Join(args, " "), r.Stderr)
				require.NotContains(t, r.Stderr, secret)
				requireSecret(t, r.Stderr)
				require.NoFileExists(t, filepath.Join(out, "private"))
				require.NoFileExists(t, filepath.Join(out, "copy"))
				if data, err := os.ReadFile(out); err == nil {
					require.NotContains(t, string(data), secret)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			requireSecret(t, strings.Join(f.seen, "\n"))
		})
	}
	t.Run("a registry that really has the layers", func(t *testing.T) {
		f := startForger(t, documents, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob(digest.Digest(filepath.Base(r.URL.Path)))))
		})
		r := d.Build(t, dockerfile(t, "FROM "+strings.TrimPrefix(f.URL, "http://")+"/copied:1", "RUN cat /private"))
		require.Contains(t, r.Stderr, secret)
	})
	t.Run("a layout without the layers", func(t *testing.T) {
		for _, l := range manifest.Layers {
			require.NoError(t, os.Remove(filepath.Join(lay, "blobs", "sha256", l.Digest.Encoded())))
		}
		bob := prepare(t, d, harness.DockerfileArgs(dockerfile(t, "FROM base", "RUN cat /private"),
			"--oci-layout=mine="+lay, "--opt=context:base=oci-layout://mine@"+top.String())...)
		bob.start(t)
		r := bob.wait(t)
		require.Equal(t, 1, r.Code, r.Stderr)
		require.NotContains(t, r.Stderr, secret)
	})
	requireSecret(t, d.Logs())
	ann = prepare(t, d, harness.DockerfileArgs(dockerfile(t, "FROM "+base, "RUN cat /private > /copy"), context)...)
	ann.login(t, s.Addr, "ann")
	ann.start(t)
	r := ann.wait(t)
	require.Zero(t, r.Code, r.Stderr)
	require.Contains(t, r.Stderr, "CACHED")
	requirePruned(t, d)
}
