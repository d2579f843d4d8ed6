// Package registrytest runs a real registry for tests: Debian's docker-registry in a process of
// its own, with its data in a folder of the test, over http or https, with users or without. It
// holds no assertions and is imported by tests only.
package registrytest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Options of a server. The zero value is plain http for everybody.
type Options struct {
	// TLS serves https with a certificate for 127.0.0.1 and localhost of a CA made for the test.
	TLS bool
	// Users are names and passwords; anybody is let in if there are none.
	Users map[string]string
	// Tokens, if not nil, says who may do what; Users are not looked at then.
	Tokens *TokenServer
}

// Server is a running registry.
type Server struct {
	// Addr is 127.0.0.1:port.
	Addr string
	// CA is the file with the CA's certificate, empty without TLS.
	CA string
}

var listening = regexp.MustCompile(`listening on ([0-9.:]+)`)

// Start runs a registry until the test ends.
func Start(t testing.TB, opt Options) *Server {
	t.Helper()
	dir := t.TempDir()
	cfg := &strings.Builder{}
	fmt.Fprintf(cfg, "version: 0.1\nlog: {level: info}\nstorage:\n  filesystem: {rootdirectory: %s/data}\n", dir)
	fmt.Fprintf(cfg, "  delete: {enabled: true}\nhttp:\n  addr: 127.0.0.1:0\n")
	s := &Server{}
	if opt.TLS {
		s.CA = writeCertificates(t, dir)
		fmt.Fprintf(cfg, "  tls: {certificate: %[1]s/cert.pem, key: %[1]s/key.pem}\n", dir)
	}
	switch {
	case opt.Tokens != nil:
		bundle := filepath.Join(dir, "tokens.pem")
		writePEM(t, bundle, "CERTIFICATE", opt.Tokens.cert)
		fmt.Fprintf(cfg, "auth:\n  token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %q}\n",
			opt.Tokens.URL, tokenService, tokenIssuer, bundle)
	case len(opt.Users) > 0:
		writeUsers(t, filepath.Join(dir, "htpasswd"), opt.Users)
		fmt.Fprintf(cfg, "auth:\n  htpasswd: {realm: test, path: %s/htpasswd}\n", dir)
	}
	file := filepath.Join(dir, "config.yml")
	must(t, os.WriteFile(file, []byte(cfg.String()), 0o600))

	cmd := exec.Command("docker-registry", "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s.Addr = awaitAddr(t, stderr)
	return s
}

// awaitAddr reads the log until the registry says where it listens, and lets the rest pass.
func awaitAddr(t testing.TB, logs io.Reader) string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		defer close(found)
		lines := bufio.NewScanner(logs)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
				break
			}
		}
		_, _ = io.Copy(io.Discard, logs)
	}()
	select {
	case addr, ok := <-found:
		if !ok {
			t.Fatal("docker-registry ended before it listened")
		}
		return addr
	case <-time.After(30 * time.Second):
		t.Fatal("docker-registry does not listen")
	}
	return ""
}

func writeUsers(t testing.TB, file string, users map[string]string) {
	t.Helper()
	out := &strings.Builder{}
	for name, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		must(t, err)
		fmt.Fprintf(out, "%s:%s\n", name, hash)
	}
	must(t, os.WriteFile(file, []byte(out.String()), 0o600))
}

// writeCertificates makes ca.pem, cert.pem and key.pem in dir and returns the first.
func writeCertificates(t testing.TB, dir string) string {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", caDER)
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", keyDER)
	return filepath.Join(dir, "ca.pem")
}

// PEM encodes what is in DER.
func PEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	must(t, os.WriteFile(file, PEM(kind, der), 0o600))
}

// WriteClientCertificate makes a certificate of a client called "client", which vouches for itself.
func WriteClientCertificate(t testing.TB, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	self := &x509.Certificate{
		SerialNumber: big.NewInt(4), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, self, self, key.Public(), key)
	must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", keyDER)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
