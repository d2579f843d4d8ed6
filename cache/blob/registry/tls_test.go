package registry_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
)

func TestClientCertificates(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.PeerCertificates[0].Subject.CommonName == "client" && strings.HasPrefix(r.UserAgent(), "buildkit/test") {
			w.Header().Set("Docker-Content-Digest", descOf(doc).Digest.String())
			w.Header().Set("Content-Type", descOf(doc).MediaType)
			_, _ = io.WriteString(w, doc)
		}
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	addr := strings.TrimPrefix(s.URL, "https://")
	dir := t.TempDir()
	writeCA(t, filepath.Join(dir, "registry.crt"), s.Certificate())
	registrytest.WriteClientCertificate(t, filepath.Join(dir, "client.cert"), filepath.Join(dir, "client.key"))
	other := t.TempDir()
	writeCA(t, filepath.Join(other, "registry.crt"), s.Certificate())

	pair := registry.KeyPair{Certificate: filepath.Join(dir, "client.cert"), Key: filepath.Join(dir, "client.key")}
	for name, tc := range map[string]struct {
		cfg  registry.HostConfig
		want string
	}{
		"are taken from a key pair":            {cfg: registry.HostConfig{CAs: []string{filepath.Join(dir, "registry.crt")}, KeyPairs: []registry.KeyPair{pair}}},
		"are taken from a folder":              {cfg: registry.HostConfig{TLSConfigDirs: []string{dir}}},
		"of several folders work together":     {cfg: registry.HostConfig{TLSConfigDirs: []string{other, dir}}},
		"are sent to an insecure host, too":    {cfg: registry.HostConfig{Insecure: true, KeyPairs: []registry.KeyPair{pair}}},
		"that are missing are refused":         {cfg: registry.HostConfig{TLSConfigDirs: []string{other}}, want: "certificate required"},
		"without a key are named":              {cfg: registry.HostConfig{KeyPairs: []registry.KeyPair{{Certificate: pair.Certificate, Key: "/nonexistent/key"}}}, want: "/nonexistent/key"},
		"a CA that is no certificate is named": {cfg: registry.HostConfig{CAs: []string{pair.Key}}, want: "no certificate in " + pair.Key},
	} {
		t.Run(name, func(t *testing.T) {
			if !tc.cfg.Insecure {
				tc.cfg.PlainHTTP = new(false)
			}
			c := registry.New(registry.Config{UserAgent: "buildkit/test", Hosts: map[string]registry.HostConfig{addr: tc.cfg}})
			defer c.CloseIdle()
			_, err := c.Repository(parse(t, addr+"/x/y:1"), nil).Resolve(t.Context())
			if tc.want != "" {
				require.ErrorContains(t, err, tc.want)
				return
			}
			require.NoError(t, err)
		})
	}
}
