package network

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/go-cni"
	"github.com/containerd/log"
)

// CNIConfig says which networks the namespaces of a CNI provider are attached to.
type CNIConfig struct {
	// StateDir is a folder of this provider's own; namespaces are mounted in it.
	StateDir string
	// BinDirs hold the plugins.
	BinDirs []string
	// ConfigFile is a network configuration (.conf) or a list of them (.conflist, or any other
	// name with a list in it). It is not used if Config is set.
	ConfigFile string
	// Config is a list of network configurations in JSON.
	Config []byte
	// PoolSize is how many namespaces Run keeps ready. A namespace is used once.
	PoolSize int
}

// BridgeConfig returns the configuration of a bridge called name with addresses out of subnet and
// masquerading to the outside.
func BridgeConfig(name, subnet string) ([]byte, error) {
	type object = map[string]any
	return json.Marshal(object{
		"cniVersion": "1.0.0",
		"name":       "buildkit",
		"plugins": []object{
			{
				"type": "bridge", "bridge": name, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
				"ipam": object{"type": "host-local", "ranges": [][]object{{{"subnet": subnet}}}},
			},
			{"type": "firewall"},
		},
	})
}

// CNI is the provider of namespaces that CNI plugins set up.
type CNI struct {
	conf CNIConfig
	cni  cni.CNI
	pool chan *namespace

	closing sync.Once
	wg      sync.WaitGroup // removals under way
}

// NewCNI returns the provider. It reads the configuration and starts nothing; plugins that are not
// there are an error. Namespaces that an earlier daemon left in StateDir are removed.
func NewCNI(ctx context.Context, conf CNIConfig) (*CNI, error) {
	load := cni.WithConfFile(conf.ConfigFile)
	switch {
	case conf.Config != nil:
		load = cni.WithConfListBytes(conf.Config)
	case isList(conf.ConfigFile):
		load = cni.WithConfListFile(conf.ConfigFile)
	}
	lib, err := cni.New(cni.WithPluginDir(conf.BinDirs), cni.WithInterfacePrefix("eth"), cni.WithLoNetwork, load)
	if err != nil {
		return nil, fmt.Errorf("load CNI configuration: %w", err)
	}
	if err := findPlugins(lib, conf.BinDirs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(conf.StateDir, 0o700); err != nil {
		return nil, err
	}
	c := &CNI{conf: conf, cni: lib, pool: make(chan *namespace, max(0, conf.PoolSize))}
	return c, c.recover(ctx)
}

// findPlugins looks for the plugins of all networks, or the first step would be the one to tell.
func findPlugins(lib cni.CNI, dirs []string) error {
	for _, n := range lib.GetConfig().Networks {
		for _, plugin := range n.Config.Plugins {
			if name := plugin.Network.Type; !slices.ContainsFunc(dirs, func(dir string) bool {
				info, err := os.Stat(filepath.Join(dir, name))
				return err == nil && info.Mode().IsRegular()
			}) {
				return fmt.Errorf("CNI plugin %q of network %q is not in %s", name, n.Config.Name, strings.Join(dirs, ", "))
			}
		}
	}
	return nil
}

func isList(file string) bool {
	if strings.HasSuffix(file, ".conflist") {
		return true
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return false // the loader reports it
	}
	var list struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	return json.Unmarshal(data, &list) == nil && len(list.Plugins) > 0
}

// recover removes what a daemon that was killed has left.
func (c *CNI) recover(ctx context.Context) error {
	entries, err := os.ReadDir(c.conf.StateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		n := &namespace{c: c, id: e.Name(), path: filepath.Join(c.conf.StateDir, e.Name())}
		if err := n.remove(ctx); err != nil {
			log.G(ctx).WithError(err).Warnf("leftover network namespace %s", n.id)
		}
	}
	return nil
}

// Run keeps the pool full until ctx ends. Without a pool it only waits.
func (c *CNI) Run(ctx context.Context) error {
	for ctx.Err() == nil && cap(c.pool) > 0 {
		n, err := c.make(ctx, "")
		if err != nil {
			log.G(ctx).WithError(err).Error("network namespace for the pool")
			break // Acquire makes its own and reports its own errors
		}
		select {
		case c.pool <- n:
		case <-ctx.Done():
			return n.remove(context.WithoutCancel(ctx))
		}
	}
	<-ctx.Done()
	return nil
}

// Acquire returns a namespace: a ready one if there is one and no hostname is to be registered.
func (c *CNI) Acquire(ctx context.Context, hostname string) (Namespace, error) {
	if hostname == "" {
		select {
		case n := <-c.pool:
			return n.handle(ctx), nil
		default:
		}
	}
	n, err := c.make(ctx, hostname)
	if err != nil {
		return Namespace{}, err
	}
	return n.handle(ctx), nil
}

// Close removes the pool and waits for removals under way. It is idempotent. Run has returned.
func (c *CNI) Close() error {
	var errs []error
	c.closing.Do(func() {
		for {
			select {
			case n := <-c.pool:
				errs = append(errs, n.remove(context.Background()))
			default:
				return
			}
		}
	})
	c.wg.Wait()
	return errors.Join(errs...)
}

type namespace struct {
	c        *CNI
	id, path string
	opts     []cni.NamespaceOpts
}

func (c *CNI) make(ctx context.Context, hostname string) (*namespace, error) {
	n := &namespace{c: c, id: strings.ToLower(rand.Text())}
	n.path = filepath.Join(c.conf.StateDir, n.id)
	if hostname != "" {
		n.opts = append(n.opts, cni.WithArgs("K8S_POD_NAME", hostname), cni.WithArgs("IgnoreUnknown", "1"))
	}
	if err := makeNetNS(n.path); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	// Serially: a plugin list may depend on what an earlier network set up.
	if _, err := c.cni.SetupSerially(ctx, n.id, n.path, n.opts...); err != nil {
		return nil, errors.Join(fmt.Errorf("set up network: %w", err), n.remove(context.WithoutCancel(ctx)))
	}
	return n, nil
}

// handle returns the namespace for one container. Its release returns at once; the plugins, which
// take their time, remove it in the background.
func (n *namespace) handle(ctx context.Context) Namespace {
	ctx = context.WithoutCancel(ctx)
	return Namespace{Path: n.path, Release: func() error {
		n.c.wg.Go(func() {
			if err := n.remove(ctx); err != nil {
				log.G(ctx).WithError(err).Warnf("remove network namespace %s", n.id)
			}
		})
		return nil
	}}
}

func (n *namespace) remove(ctx context.Context) error {
	err := n.c.cni.Remove(ctx, n.id, n.path, n.opts...)
	return errors.Join(err, removeNetNS(n.path))
}
