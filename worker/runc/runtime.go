// Package runc runs containers with an external OCI runtime, runc or one that has its command line
// (crun), and puts the worker together that uses it.
//
// It prepares on the host what the runtime needs: the root mounted on a folder, mount sources
// resolved within their trees, mount points, the user looked up in the tree, a specification. The
// runtime starts the process of the container, with streams that lead to the daemon, and ends: what
// the process prints goes through no other hands, and nothing else has to stay in memory for it.
// Afterwards everything is removed: the container, its cgroup, mounts, the mount points that were made.
// What a daemon that was killed has left is removed by Recover.
//
// Nothing in a container's tree is trusted: paths in it are resolved with package beneath.
package runc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	gorunc "github.com/containerd/go-runc"

	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/device"
	"github.com/openbuildkit/buildkit/worker/network"
	"github.com/openbuildkit/buildkit/worker/spec"
)

// RuntimeConfig is how containers are run. Root is required.
type RuntimeConfig struct {
	// Root is a folder of this runtime's own. What is in it when the daemon starts is a leftover.
	Root string
	// Binary is the name or path of the OCI runtime. Empty takes the first that there is of
	// buildkit-runc, runc and crun.
	Binary string
	// CgroupParent is used by containers that name none.
	CgroupParent string
	Network      network.Providers
	DNS          spec.DNS
	// Rootless is set when the daemon is root of a user namespace only.
	Rootless bool
	// NoProcessSandbox leaves containers in the daemon's PID namespace. It requires Rootless.
	NoProcessSandbox bool
	AppArmorProfile  string
	SELinux          bool
	// Devices are those that containers may ask for; nil are none.
	Devices *device.Registry
}

// Runtime is a worker.Runtime over the command line of an OCI runtime.
type Runtime struct {
	conf  RuntimeConfig
	dirs  dirs
	oci   *oci
	host  spec.Host
	files *etcFiles

	mu         sync.Mutex
	containers map[string]*container
}

var _ worker.Runtime = (*Runtime)(nil)

// dirs are the folders of a runtime.
type dirs struct {
	state   string // the OCI runtime's own
	bundles string // one folder for each container
	etc     string // files that containers share
	secrets string // where package worker mounts secrets
}

// container is one that is being prepared, running, or being removed.
type container struct {
	id   string
	spec worker.Container
	// running is closed when the init runs and bundle is set, done when it has ended.
	running, done chan struct{}
	bundle        *bundle
	execs         sync.WaitGroup

	mu    sync.Mutex
	ended bool
}

// NewRuntime returns the runtime. It looks for the binary, asks it for its version and reads facts
// of the machine; it starts nothing. Recover is to be called once before Run.
func NewRuntime(ctx context.Context, conf RuntimeConfig) (*Runtime, error) {
	if conf.NoProcessSandbox && !conf.Rootless {
		return nil, errors.New("can't enable NoProcessSandbox without Rootless")
	}
	root, err := filepath.Abs(conf.Root)
	if err != nil {
		return nil, err
	}
	d := dirs{
		state: filepath.Join(root, "state"), bundles: filepath.Join(root, "bundles"),
		etc: filepath.Join(root, "etc"), secrets: filepath.Join(root, "secrets"),
	}
	for _, dir := range []string{d.state, d.bundles, d.etc, d.secrets} {
		// Others may enter bundles, whose mounts are reached as mapped users.
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	o, err := newOCI(ctx, conf.Binary, d.state)
	if err != nil {
		return nil, err
	}
	if !o.stays {
		if err := adoptOrphans(); err != nil {
			return nil, err
		}
	}
	host, err := newHost(conf)
	if err != nil {
		return nil, err
	}
	return &Runtime{
		conf: conf, dirs: d, oci: o, host: host, files: &etcFiles{dir: d.etc, dns: conf.DNS},
		containers: map[string]*container{},
	}, nil
}

// SecretDir is the folder for worker.SecretMount: Recover removes what is left in it.
func (r *Runtime) SecretDir() string { return r.dirs.secrets }

// Binary returns the path of the OCI runtime.
func (r *Runtime) Binary() string { return r.oci.binary }

// validID is what names a folder, a cgroup and a container of any OCI runtime.
var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// NewID returns an id for a container: 25 characters, as the records of a worker have.
func NewID() string { return strings.ToLower(rand.Text()[:25]) }

func (r *Runtime) register(c worker.Container) (*container, error) {
	id := c.ID
	if id == "" {
		id = NewID()
	}
	if !validID.MatchString(id) {
		return nil, fmt.Errorf("invalid container id %q", id)
	}
	ct := &container{id: id, spec: c, running: make(chan struct{}), done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.containers[id] != nil {
		return nil, fmt.Errorf("container %s exists", id)
	}
	r.containers[id] = ct
	return ct, nil
}

func (r *Runtime) unregister(ct *container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, ct.id)
}

func (r *Runtime) lookup(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ct := r.containers[id]
	if ct == nil {
		return nil, fmt.Errorf("container %s is not running", id)
	}
	return ct, nil
}

// cgroupsPath returns where the container has its cgroup; empty for one that has what the runtime can
// make: to a daemon in a user namespace only places that somebody gave to it are open.
func (r *Runtime) cgroupsPath(ct *container) string {
	parent := ct.spec.CgroupParent
	if parent == "" {
		parent = r.conf.CgroupParent
	}
	if r.conf.Rootless && parent == "" {
		return ""
	}
	return spec.CgroupsPath(parent, ct.id)
}

// client returns the go-runc client for the container's kind of cgroup.
func (o *oci) client(cgroupsPath string) *gorunc.Runc {
	return &gorunc.Runc{
		Command: o.binary, Root: o.state, Setpgid: true,
		SystemdCgroup: spec.IsSystemdPath(cgroupsPath),
	}
}
