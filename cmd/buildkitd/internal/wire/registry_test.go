package wire

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/session"
)

// Every key of a registry's table does what the reference says.
func TestTheConfigurationOfRegistriesIsInUse(t *testing.T) {
	resolve := func(t *testing.T, name, toml string) error {
		t.Helper()
		cfg, unknown, err := config.Parse("buildkitd.toml", []byte(toml))
		require.NoError(t, err)
		require.Empty(t, unknown)
		cfg.SetDefaults(config.Host{Getenv: func(string) string { return "" }})
		c := newRegistry(cfg, session.NewManager())
		defer c.CloseIdle()
		ref, err := reference.ParseNormalizedNamed(name)
		require.NoError(t, err)
		_, err = c.Repository(reference.TagNameOnly(ref), nil).Resolve(t.Context())
		return err
	}
	var agent atomic.Pointer[string]
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.UserAgent()
		agent.Store(&name)
		if !strings.HasPrefix(r.URL.Path, "/v2/x/y/manifests/") && !strings.HasPrefix(r.URL.Path, "/v2/deep/path/library/x/manifests/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_, _ = io.WriteString(w, `{}`)
	})
	plain := httptest.NewServer(answer)
	t.Cleanup(plain.Close)
	s := httptest.NewUnstartedServer(answer)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	http1 := strings.TrimPrefix(plain.URL, "http://")
	https := strings.TrimPrefix(s.URL, "https://")

	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "client.cert"), filepath.Join(dir, "client.key")
	require.NoError(t, os.WriteFile(ca, registrytest.PEM("CERTIFICATE", s.Certificate().Raw), 0o600))
	registrytest.WriteClientCertificate(t, cert, key)
	pair := fmt.Sprintf("\n[[registry.%q.keypair]]\ncert = %q\nkey = %q\n", https, cert, key)

	for name, tc := range map[string]struct{ ref, toml, err string }{
		"loopback is plain":       {ref: http1 + "/x/y"},
		"http = false":            {http1 + "/x/y", "http = false", "server gave HTTP response to HTTPS client"},
		"http = true":             {http1 + "/x/y", "http = true", ""},
		"insecure":                {https + "/x/y", "insecure = true" + pair, ""},
		"insecure and plain":      {http1 + "/x/y", "insecure = true", ""},
		"ca and keypair":          {https + "/x/y", fmt.Sprintf("http = false\nca = [%q]", ca) + pair, ""},
		"keypair without its ca":  {https + "/x/y", "http = false" + pair, "certificate signed by unknown authority"},
		"ca without its keypair":  {https + "/x/y", fmt.Sprintf("http = false\nca = [%q]", ca), "certificate required"},
		"tlsconfigdir":            {https + "/x/y", fmt.Sprintf("http = false\ntlsconfigdir = [%q, \"/nonexistent\"]", dir), ""},
		"a mirror with a path":    {"x", fmt.Sprintf("mirrors = [\"%s/deep/path\"]", http1), ""},
		"mirrors in their order":  {"x", fmt.Sprintf("mirrors = [\"127.0.0.1:1\", \"%s/deep/path\"]", http1), ""},
		"no such mirror, no such": {"localhost:1/x/y", "mirrors = [\"127.0.0.1:1\"]", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			host, _, ok := strings.Cut(tc.ref, "/")
			if !ok {
				host = "docker.io"
			}
			toml := ""
			if tc.toml != "" {
				toml = fmt.Sprintf("[registry.%q]\n%s\n", host, tc.toml)
			}
			err := resolve(t, tc.ref, toml)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(*agent.Load(), "buildkit/"), *agent.Load())
		})
	}
}
