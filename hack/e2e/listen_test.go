package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{certificate: certificate, key: key, pem: block("CERTIFICATE", der)}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue writes ca.pem, cert.pem and key.pem of a new certificate to a folder. It is good for a
// server on the loopback interface, and for a client.
func (a *authority) issue(t *testing.T) (dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "buildkit"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"buildkit.example"},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir = t.TempDir()
	for name, data := range map[string][]byte{"ca.pem": a.pem, "cert.pem": block("CERTIFICATE", der), "key.pem": block("PRIVATE KEY", secret)} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return dir
}

// freeAddress returns an address that nobody listened on just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestADaemonOnTheNetworkKnowsItsClientsByTheirCertificates(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	server, client, stranger := ours.issue(t), ours.issue(t), theirs.issue(t)
	addr := "tcp://" + freeAddress(t)
	d := start(t, harness.DaemonOptions{Args: []string{
		"--addr=" + addr,
		"--tlscacert=" + filepath.Join(server, "ca.pem"),
		"--tlscert=" + filepath.Join(server, "cert.pem"),
		"--tlskey=" + filepath.Join(server, "key.pem"),
	}})
	dir := dockerfile(t, "FROM busybox AS b", "RUN echo $(cat /etc/hostname) > /x", "FROM scratch", "COPY --from=b /x /")

	t.Run("a build", func(t *testing.T) {
		out := t.TempDir()
		d.MustBuildctl(t, append([]string{"--addr=" + addr, "--tlsdir=" + client}, harness.DockerfileArgs(dir, toLocal(out))...)...)
		require.FileExists(t, filepath.Join(out, "x"))
	})
	t.Run("a build, each file by a flag, the server by its name", func(t *testing.T) {
		d.MustBuildctl(t, append([]string{
			"--addr=" + addr, "--tlsservername=buildkit.example",
			"--tlscacert=" + filepath.Join(client, "ca.pem"), "--tlscert=" + filepath.Join(client, "cert.pem"), "--tlskey=" + filepath.Join(client, "key.pem"),
		}, harness.DockerfileArgs(dir)...)...)
	})
	for name, args := range map[string][]string{
		"a client without a certificate":     {"--tlscacert=" + filepath.Join(client, "ca.pem")},
		"a client of an other authority":     {"--tlscacert=" + filepath.Join(client, "ca.pem"), "--tlscert=" + filepath.Join(stranger, "cert.pem"), "--tlskey=" + filepath.Join(stranger, "key.pem")},
		"a client that trusts somebody else": {"--tlsdir=" + stranger},
		"a client that expects another name": {"--tlsdir=" + client, "--tlsservername=other.example"},
		"a client without TLS":               nil,
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			result := d.Buildctl(t, append([]string{"--addr=" + addr, "--timeout=3"}, append(args, "debug", "info")...)...)
			require.Equal(t, 1, result.Code, result.Stdout)
			require.Contains(t, result.Stderr, "error: ")
		})
	}
	t.Run("the socket needs no certificate", func(t *testing.T) {
		require.Empty(t, ran(d.Build(t, dir)))
	})
}

func TestADaemonIsHandedItsSocketByTheServiceManager(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	tcp, ok := l.(*net.TCPListener)
	require.True(t, ok)
	socket, err := tcp.File()
	require.NoError(t, err)
	defer socket.Close()

	d := start(t, harness.DaemonOptions{Args: []string{"--addr=fd://"}, Sockets: []*os.File{socket}})
	out := t.TempDir()
	args := harness.DockerfileArgs(dockerfile(t, "FROM busybox", "RUN echo activated > /x"), toLocal(out))
	d.MustBuildctl(t, append([]string{"--addr=tcp://" + l.Addr().String()}, args...)...)
	require.Equal(t, "activated\n", read(t, out, "x"))
	d.Restart(t)
	d.MustBuildctl(t, append([]string{"--addr=tcp://" + l.Addr().String()}, args...)...)
}

func TestTheConnectionOfAHelperIsAsGoodAsADirectOne(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	// What the connection helpers run on the other side, run here.
	dir := tree(t, map[string]string{"docker": "#!/bin/sh\nshift 3\nexec \"$@\"\n"})
	require.NoError(t, os.Chmod(filepath.Join(dir, "docker"), 0o755))
	c := prepare(t, d, append([]string{"--addr=docker-container://name"}, harness.DockerfileArgs(dockerfile(t, "FROM busybox", "RUN echo through"))...)...)
	for i, v := range c.cmd.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			c.cmd.Env[i] = "PATH=" + dir + ":" + path
		}
	}
	c.start(t)
	result := c.wait(t)
	require.Zero(t, result.Code, result.Stderr)
	require.NotEmpty(t, ran(result))
}
