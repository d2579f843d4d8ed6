package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/client"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.key = key
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) writeCA(path string) { writePEM(a.t, path, "CERTIFICATE", a.cert.Raw) }

// writePair writes a certificate for a host and its key.
func (a *authority) writePair(host, cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, k.Public(), a.key)
	require.NoError(a.t, err)
	raw, err := x509.MarshalECPrivateKey(k)
	require.NoError(a.t, err)
	writePEM(a.t, cert, "CERTIFICATE", der)
	writePEM(a.t, key, "EC PRIVATE KEY", raw)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func TestBothSidesOfATLSConnectionAreVerified(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca.writePair("daemon.example", file("server.crt"), file("server.key"))
	pair, err := tls.LoadX509KeyPair(file("server.crt"), file("server.key"))
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(),
	})))
	controlpb.RegisterControlServer(srv, &fakeDaemon{})
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)

	// The names of pem win; the sets may be mixed.
	good := t.TempDir()
	ca.writeCA(filepath.Join(good, "ca.pem"))
	other.writeCA(filepath.Join(good, "ca.crt"))
	ca.writePair("client", filepath.Join(good, "cert.pem"), filepath.Join(good, "tls.key"))
	foreign := t.TempDir()
	ca.writeCA(filepath.Join(foreign, "ca.pem"))
	other.writePair("client", filepath.Join(foreign, "tls.crt"), filepath.Join(foreign, "tls.key"))

	for name, c := range map[string]struct {
		flags tlsFlags
		text  string
	}{
		"a folder of certificates":        {tlsFlags{dir: good, serverName: "daemon.example"}, ""},
		"the name is that of the address": {tlsFlags{dir: good}, "127.0.0.1"},
		"another name":                    {tlsFlags{dir: good, serverName: "else.example"}, "else.example"},
		"a foreign client":                {tlsFlags{dir: foreign, serverName: "daemon.example"}, "failed to call info"},
		"a daemon of another authority": {tlsFlags{
			caCert: filepath.Join(good, "ca.crt"), serverName: "daemon.example",
		}, "certificate signed by unknown authority"},
		"no client certificate": {tlsFlags{caCert: filepath.Join(good, "ca.pem"), serverName: "daemon.example"}, "failed to call info"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := c.flags.config()
			require.NoError(t, err)
			cl, err := client.New("tcp://"+l.Addr().String(), client.WithTLS(cfg))
			require.NoError(t, err)
			defer cl.Close()
			_, err = cl.Info(t.Context())
			if c.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.text)
		})
	}
}
