package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/log"
	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

// listeners are where the API is served.
type listeners []net.Listener

// listen opens all addresses or none.
func listen(cfg config.GRPC) (listeners, error) {
	tlsConfig, err := loadTLS(cfg.TLS)
	if err != nil {
		return nil, err
	}
	var open listeners
	for _, addr := range cfg.Addresses {
		lis, err := listenOn(addr, cfg, tlsConfig)
		if err != nil {
			open.close()
			return nil, err
		}
		open = append(open, lis)
	}
	return open, nil
}

func (l listeners) close() {
	for _, lis := range l {
		if err := lis.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			log.L.WithError(err).Warnf("close %s", lis.Addr())
		}
	}
}

// listenOn opens one address: scheme://rest.
func listenOn(addr string, cfg config.GRPC, tlsConfig *tls.Config) (net.Listener, error) {
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok {
		return nil, fmt.Errorf("address %s does not contain proto, you meant unix://%s ?", addr, addr)
	}
	var lis net.Listener
	var err error
	switch scheme {
	case "unix":
		if tlsConfig != nil {
			log.L.Warnf("TLS is disabled for %s", addr)
		}
		return listenUnix(rest, cfg.UID, cfg.GID)
	case "fd":
		lis, err = listenFD(rest)
	case "tcp":
		if tlsConfig == nil {
			log.L.Warnf("TLS is not enabled for %s: everyone who reaches it is root here. Mutual TLS is strongly recommended", addr)
		}
		lis, err = net.Listen("tcp", rest)
	default:
		return nil, fmt.Errorf("address %s: %s is not supported, known are unix, tcp and fd", addr, scheme)
	}
	if err != nil {
		return nil, err
	}
	if tlsConfig != nil {
		lis = tls.NewListener(lis, tlsConfig)
	}
	return lis, nil
}

// listenUnix opens a socket for the owner and the group alone. A socket that nobody serves any
// more is replaced.
func listenUnix(path string, uid, gid *int) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Between bind and chmod the socket must not be open to all; nothing else runs yet.
	const ownerAndGroup = 0o117
	umask := unix.Umask(ownerAndGroup)
	lis, err := net.Listen("unix", path)
	unix.Umask(umask)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(path, orSelf(uid, os.Getuid()), orSelf(gid, os.Getgid())); err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	return lis, nil
}

func orSelf(id *int, self int) int {
	if id != nil {
		return *id
	}
	return self
}

// removeStale removes the socket of a daemon that is gone.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("listen on %s: there is something that is not a socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return errors.Join(fmt.Errorf("listen on %s: another daemon serves it", path), conn.Close())
	}
	return os.Remove(path)
}

// listenFD takes the first socket that systemd hands over.
func listenFD(name string) (net.Listener, error) {
	if name != "" {
		return nil, fmt.Errorf("address fd://%s: names of sockets are not supported yet", name)
	}
	handed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	for _, lis := range handed {
		if lis != nil {
			return lis, nil
		}
	}
	return nil, errors.New("no sockets found via socket activation: make sure the service was started by systemd")
}

// loadTLS returns nil if no file is named.
func loadTLS(cfg config.TLS) (*tls.Config, error) {
	if cfg == (config.TLS{}) {
		return nil, nil
	}
	if cfg.Cert == "" || cfg.Key == "" {
		return nil, errors.New("you must specify key and cert file if one is specified")
	}
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("could not load server key pair: %w", err)
	}
	out := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2"},
		Certificates: []tls.Certificate{pair},
	}
	if cfg.CA == "" {
		return out, nil
	}
	pem, err := os.ReadFile(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("could not read ca certificate: %w", err)
	}
	out.ClientCAs = x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", cfg.CA)
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	return out, nil
}
