package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/blob/registry"
)

// writePair makes a client certificate.
func writePair(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	der, err = x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

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
	writePair(t, filepath.Join(dir, "client.cert"), filepath.Join(dir, "client.key"))
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
