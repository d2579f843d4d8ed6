package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/gc"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

func TestARootHasOneDaemon(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "root")
	st, err := openState(root)
	require.NoError(t, err)
	info, err := os.Stat(root)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	_, err = openState(root)
	require.EqualError(t, err, "could not lock "+root+"/buildkitd.lock, another instance running?")
	require.NoError(t, st.close())
	st, err = openState(root)
	require.NoError(t, err)
	require.NoError(t, st.close())
}

func TestStateOfAnotherFormatIsLeftAlone(t *testing.T) {
	root := t.TempDir()
	foreign := filepath.Join(root, "cache.db")
	require.NoError(t, os.WriteFile(foreign, []byte("foreign"), 0o600))
	st, err := openState(root)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(st.sub(formatFile), []byte("99\n"), 0o600))
	require.NoError(t, st.close())
	_, err = openState(root)
	require.ErrorContains(t, err, `has format "99", this daemon reads "1"`)
	_, err = openState(root)
	require.ErrorContains(t, err, "has format", "a root that is not taken is not locked")
	data, err := os.ReadFile(foreign)
	require.NoError(t, err)
	require.Equal(t, "foreign", string(data))
}

func TestAUnixSocketIsForOwnerAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "d.sock")
	gid := 12345
	cfg := config.GRPC{Addresses: []string{"unix://" + path}, GID: &gid}
	open, err := listen(cfg)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
	var owner unix.Stat_t
	require.NoError(t, unix.Stat(path, &owner))
	require.EqualValues(t, gid, owner.Gid)

	_, err = listen(cfg)
	require.EqualError(t, err, "listen on "+path+": another daemon serves it")
	open.close()

	// What a daemon that was killed leaves is replaced.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	open, err = listen(cfg)
	require.NoError(t, err)
	open.close()

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = listen(cfg)
	require.ErrorContains(t, err, "not a socket")
}

func TestAddressesThatCannotBeServed(t *testing.T) {
	for addr, want := range map[string]string{
		"nonsense":           "address nonsense does not contain proto, you meant unix://nonsense ?",
		"npipe:////./pipe/x": "address npipe:////./pipe/x: npipe is not supported, known are unix, tcp and fd",
		"fd://name":          "address fd://name: names of sockets are not supported yet",
		"fd://":              "no sockets found via socket activation: make sure the service was started by systemd",
	} {
		first := "unix://" + filepath.Join(t.TempDir(), "d.sock")
		_, err := listen(config.GRPC{Addresses: []string{first, addr}})
		require.EqualError(t, err, want)
		_, err = os.Stat(first[len("unix://"):])
		require.ErrorIs(t, err, os.ErrNotExist, "the addresses before it are closed")
	}
}

// certificate makes a key pair that signs itself and returns its files.
func certificate(t *testing.T) (cert, key string, pair tls.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	encoded, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, certPEM, 0o600))
	require.NoError(t, os.WriteFile(key, keyPEM, 0o600))
	pair, err = tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	return cert, key, pair
}

func TestTLSWithACAWantsCertificatesOfClients(t *testing.T) {
	cert, key, pair := certificate(t)
	open, err := listen(config.GRPC{
		Addresses: []string{"tcp://127.0.0.1:0"},
		TLS:       config.TLS{Cert: cert, Key: key, CA: cert},
	})
	require.NoError(t, err)
	defer open.close()
	go func() {
		for {
			conn, err := open[0].Accept()
			if err != nil {
				return
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				_ = conn.Close()
			}
		}
	}()
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	greet := func(certs ...tls.Certificate) error {
		conn, err := tls.Dial("tcp", open[0].Addr().String(), &tls.Config{RootCAs: pool, Certificates: certs, NextProtos: []string{"h2"}})
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	require.NoError(t, greet(pair))
	require.ErrorContains(t, greet(), "certificate required")

	for want, cfg := range map[string]config.TLS{
		"you must specify key and cert file": {CA: cert},
		"could not load server key pair":     {Cert: cert, Key: cert},
		"could not read ca certificate":      {Cert: cert, Key: key, CA: "/nonexistent"},
		"no certificate in " + key:           {Cert: cert, Key: key, CA: key},
	} {
		_, err := loadTLS(cfg)
		require.ErrorContains(t, err, want)
	}
}

// pruned is a storage that counts.
type pruned struct {
	mu       sync.Mutex
	times    int
	policies []gc.Policy
	err      error
}

func (p *pruned) DiskUsage(context.Context, []string) ([]cache.Usage, error) { return nil, nil }

func (p *pruned) Prune(_ context.Context, policies []gc.Policy, removed func(cache.Usage)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times++
	p.policies = policies
	removed(cache.Usage{Size: 1})
	return p.err
}

func TestTheCollectorRunsSoonAfterStartAndBuilds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &pruned{}
		policies := []gc.Policy{{KeepDuration: 1}, {All: true}}
		c := newCollector(storage, policies)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx) }()

		wait := func(d time.Duration) (times int) {
			<-time.After(d)
			synctest.Wait()
			storage.mu.Lock()
			defer storage.mu.Unlock()
			return storage.times
		}
		require.Zero(t, wait(collectDelay/2))
		require.Equal(t, 1, wait(collectDelay))
		require.Equal(t, policies, storage.policies)

		for range 100 {
			c.want() // many builds make one collection
		}
		require.Equal(t, 1, wait(collectPause/2), "not again at once")
		storage.mu.Lock()
		storage.err = errors.New("disk on fire")
		storage.mu.Unlock()
		require.Equal(t, 2, wait(collectPause))
		require.Equal(t, 2, wait(time.Hour), "nothing is wanted")
		c.want()
		require.Equal(t, 3, wait(2*collectDelay), "a failure is not the end")
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestWorkerIDsLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "workerid")
	first, err := workerID(path)
	require.NoError(t, err)
	require.Len(t, first, 25)
	again, err := workerID(path)
	require.NoError(t, err)
	require.Equal(t, first, again)
}

func TestPlatformsOfAWorker(t *testing.T) {
	cfg := &config.Config{}
	host, err := newPlatforms(cfg, t.TempDir())
	require.NoError(t, err)
	require.Equal(t, "linux", host.Default().OS)
	require.Empty(t, host.Default().OSVersion)
	require.Equal(t, host.Default(), host.List()[0])
	cfg.Workers.OCI.Platforms = []string{"linux/arm64", "linux/arm"}
	some, err := newPlatforms(cfg, t.TempDir())
	require.NoError(t, err)
	require.Equal(t, "arm64", some.Default().Architecture)
	require.Equal(t, "v7", some.List()[1].Variant)
	cfg.Workers.OCI.Platforms = []string{"a/b/c/d"}
	_, err = newPlatforms(cfg, t.TempDir())
	require.ErrorContains(t, err, "platforms of the worker")
	require.ErrorContains(t, err, `"a/b/c/d"`)
}

func TestWhatAConfigurationMustNotAskFor(t *testing.T) {
	for want, change := range map[string]func(*config.Config){
		"proxyNetwork is not supported":                                       func(c *config.Config) { c.ProxyNetwork = true },
		"proxy snapshotters are not supported":                                func(c *config.Config) { c.Workers.OCI.ProxySnapshotterPath = "x" },
		"user remapping is not supported":                                     func(c *config.Config) { c.Workers.OCI.UserRemapUnsupported = "x" },
		"can't enable NoProcessSandbox without Rootless":                      func(c *config.Config) { c.Workers.OCI.NoProcessSandbox = true },
		"invalid max-parallelism -1":                                          func(c *config.Config) { c.Workers.OCI.MaxParallelism = -1 },
		"invalid grpc uid -5":                                                 func(c *config.Config) { c.GRPC.UID = new(-5) },
		"invalid grpc gid -1":                                                 func(c *config.Config) { c.GRPC.GID = new(-1) },
		`invalid bridgeSubnet "10.0.0.1": want a subnet such as 10.10.0.0/16`: func(c *config.Config) { c.Workers.OCI.BridgeSubnet = "10.0.0.1" },
		`invalid filters ["type="] of a gcpolicy: filters: parse error: [type >|=|< ]: unsupported operator "=": invalid argument`: func(c *config.Config) {
			c.Workers.OCI.Policies = []config.GCPolicy{{}, {Filters: []string{"type="}}}
		},
		"invalid keepDuration -1h0m0s of a gcpolicy": func(c *config.Config) {
			c.Workers.OCI.Policies = []config.GCPolicy{{KeepDuration: config.Duration{Duration: -time.Hour}}}
		},
		`unknown snapshotter name: "fuse-overlayfs"`: func(c *config.Config) { c.Workers.OCI.Snapshotter = "fuse-overlayfs" },
	} {
		cfg := &config.Config{}
		cfg.SetDefaults(config.Host{Getenv: func(string) string { return "" }})
		require.NoError(t, check(cfg))
		change(cfg)
		require.EqualError(t, check(cfg), want)
	}
}
