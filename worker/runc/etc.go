package runc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/spec"
)

// etcFiles makes the files that containers see in /etc. Those that many see alike are written once;
// a change of the host's file makes a new one, containers keep the one they started with.
type etcFiles struct {
	dir string
	dns spec.DNS

	mu     sync.Mutex
	hosts  string
	resolv [2]resolvConf // index 1: on the host's network
}

type resolvConf struct {
	path  string
	stamp [2]stamp
}

// stamp tells versions of a file apart.
type stamp struct {
	size  int64
	mtime time.Time
}

// hostsFile returns the file for /etc/hosts; one that belongs to a single container is in bundle.
func (e *etcFiles) hostsFile(hostname string, extra []*pb.HostIP, bundle string) (string, error) {
	shared := spec.Hostname(hostname) == spec.DefaultHostname && len(extra) == 0
	e.mu.Lock()
	defer e.mu.Unlock()
	if shared && e.hosts != "" {
		return e.hosts, nil
	}
	text, err := spec.Hosts(hostname, extra)
	if err != nil {
		return "", err
	}
	if !shared {
		p := filepath.Join(bundle, "hosts")
		return p, os.WriteFile(p, text, 0o644)
	}
	p := filepath.Join(e.dir, "hosts")
	if err := replaceFile(p, text); err != nil {
		return "", err
	}
	e.hosts = p
	return p, nil
}

// resolvFile returns the file for /etc/resolv.conf.
func (e *etcFiles) resolvFile(hostNetwork bool) (string, error) {
	i := 0
	if hostNetwork {
		i = 1
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := [2]stamp{stampOf(spec.ResolvFile), stampOf(spec.ResolvedFile)}
	if r := e.resolv[i]; r.path != "" && r.stamp == now {
		return r.path, nil
	}
	text, err := hostResolvConf(hostNetwork)
	if err != nil {
		return "", err
	}
	p := filepath.Join(e.dir, fmt.Sprintf("resolv-%d.conf", i))
	if err := replaceFile(p, spec.ResolvConf(text, e.dns, hostNetwork)); err != nil {
		return "", err
	}
	e.resolv[i] = resolvConf{path: p, stamp: now}
	return p, nil
}

// hostResolvConf reads the host's file; where that names nothing but the stub of systemd-resolved,
// which containers of another network cannot reach, it reads what the stub would ask.
func hostResolvConf(hostNetwork bool) ([]byte, error) {
	text, err := readOrEmpty(spec.ResolvFile)
	if err != nil || hostNetwork || !spec.OnlyResolved(text) {
		return text, err
	}
	upstream, err := readOrEmpty(spec.ResolvedFile)
	if err != nil || len(upstream) == 0 {
		return text, err
	}
	return upstream, nil
}

func readOrEmpty(p string) ([]byte, error) {
	data, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func stampOf(p string) stamp {
	st, err := os.Stat(p)
	if err != nil {
		return stamp{}
	}
	return stamp{size: st.Size(), mtime: st.ModTime()}
}

// replaceFile gives p new contents in a new inode: the old one may be mounted in containers.
func replaceFile(p string, data []byte) error {
	tmp := p + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o644); err != nil { // past the umask
		return err
	}
	return os.Rename(tmp, p)
}
