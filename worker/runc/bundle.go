package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/device"
	"github.com/openbuildkit/buildkit/worker/internal/beneath"
	"github.com/openbuildkit/buildkit/worker/internal/passwd"
	"github.com/openbuildkit/buildkit/worker/network"
	"github.com/openbuildkit/buildkit/worker/spec"
)

// bundle is a container made ready on the host: its folder, mounts and specification.
type bundle struct {
	dir    string
	rootfs string
	root   *beneath.Root
	stubs  *stubs
	// mounts are those of the request and of files of ours, all those of the specification too.
	mounts, all []specs.Mount
	net         network.Namespace
	// undo has what close does, last added first.
	undo []func() error
}

// Files of a bundle.
const (
	configFile = "config.json"
	pidFile    = "pid"
	logFile    = "log.json"
)

func (b *bundle) path(name string) string { return filepath.Join(b.dir, name) }

// close removes all that open made. Every step is tried.
func (b *bundle) close() error {
	var errs []error
	for i := len(b.undo) - 1; i >= 0; i-- {
		errs = append(errs, b.undo[i]())
	}
	b.undo = nil
	return errors.Join(errs...)
}

func (b *bundle) onClose(f func() error) { b.undo = append(b.undo, f) }

// onClosed adds what close does last.
func (b *bundle) onClosed(f func() error) { b.undo = slices.Insert(b.undo, 0, f) }

// openBundle makes the bundle of a container whose init is p. On failure nothing is left.
func (r *Runtime) openBundle(ctx context.Context, ct *container, p worker.Process) (_ *bundle, err error) {
	b := &bundle{dir: filepath.Join(r.dirs.bundles, ct.id)}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if err := os.Mkdir(b.dir, 0o711); err != nil {
		return nil, err
	}
	b.onClose(func() error { return removeBundle(b.dir) })
	if err := b.connect(ctx, r.conf.Network, ct.spec); err != nil {
		return nil, err
	}
	if err := b.mountRoot(ct.spec); err != nil {
		return nil, err
	}
	// Whom the process runs as is a mistake of the user's if it fails: before anything slow.
	user, err := lookupUser(b.root, p.User)
	if err != nil {
		return nil, err
	}
	if err := r.addEtc(b, ct.spec); err != nil {
		return nil, err
	}
	for i, m := range ct.spec.Mounts {
		if err := b.addMount(i, m); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Dest, err)
		}
	}
	return b, r.writeSpec(b, ct, p, user)
}

func (b *bundle) connect(ctx context.Context, nets network.Providers, c worker.Container) error {
	provider, err := nets.For(c.Network)
	if err != nil {
		return err
	}
	b.net, err = provider.Acquire(ctx, c.Hostname)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if b.net.Release != nil {
		b.onClose(b.net.Release)
	}
	return nil
}

func (b *bundle) mountRoot(c worker.Container) error {
	b.rootfs = b.path("rootfs")
	dir, err := b.stage(c.Root, b.rootfs)
	if err != nil {
		return fmt.Errorf("mount /: %w", err)
	}
	if b.root, err = beneath.Open(dir); err != nil {
		return err
	}
	b.rootfs = dir
	b.stubs = &stubs{root: b.root, recursive: c.RemoveStubsRecursive}
	b.onClose(func() error { return errors.Join(b.stubs.remove(), b.root.Close()) })
	return nil
}

func (r *Runtime) addEtc(b *bundle, c worker.Container) error {
	hosts, err := r.files.hostsFile(c.Hostname, c.ExtraHosts, b.dir)
	if err != nil {
		return err
	}
	resolv, err := r.files.resolvFile(b.net.Host)
	if err != nil {
		return err
	}
	b.mounts = append(b.mounts, spec.FileMount(resolv, "/etc/resolv.conf"), spec.FileMount(hosts, "/etc/hosts"))
	return nil
}

// writeSpec makes what the process needs to be in the tree and writes the specification.
func (r *Runtime) writeSpec(b *bundle, ct *container, p worker.Process, u spec.User) error {
	in := spec.Input{
		ID: ct.id, Container: ct.spec, Process: p, User: u, Rootfs: b.rootfs, Mounts: b.mounts,
		Network: b.net, CgroupsPath: r.cgroupsPath(ct),
	}
	if r.conf.SELinux && selinux.GetEnabled() {
		in.ProcessLabel, in.MountLabel = selinux.InitContainerLabels() //nolint:staticcheck // its successor does not tell the label of mounts
		b.onClose(func() error { selinux.ReleaseLabel(in.ProcessLabel); return nil })
	}
	s, err := spec.Build(r.host, in)
	if err != nil {
		return err
	}
	if err := b.addDevices(s, r.conf.Devices, ct.spec.Devices); err != nil {
		return err
	}
	b.all = s.Mounts
	if err := makeCwd(b.root, b.all, spec.Cwd(p), u); err != nil {
		return err
	}
	if err := b.makeStubs(); err != nil {
		return err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(b.path(configFile), data, 0o600)
}

// addDevices adds devices of the host. What they mount counts as mounts of the request.
func (b *bundle) addDevices(s *specs.Spec, registry *device.Registry, devices []*pb.CDIDevice) error {
	if len(devices) == 0 {
		return nil
	}
	before := make(map[string]bool, len(s.Mounts))
	for _, m := range s.Mounts {
		before[m.Destination] = true
	}
	if err := registry.Inject(s, devices); err != nil {
		return err
	}
	for i, m := range s.Mounts {
		if before[m.Destination] {
			continue
		}
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			s.Mounts[i].Type = "bind"
		}
		b.mounts = append(b.mounts, s.Mounts[i])
	}
	return nil
}

// makeStubs makes the mount points of the request's mounts in the root.
func (b *bundle) makeStubs() error {
	own := make(map[string]bool, len(b.mounts))
	for _, m := range b.mounts {
		own[m.Destination] = true
	}
	for _, m := range b.all {
		if !own[m.Destination] || below(m.Destination, b.all) {
			continue
		}
		if err := b.stubs.make(m); err != nil {
			return err
		}
	}
	return nil
}

func lookupUser(root *beneath.Root, name string) (spec.User, error) {
	u, err := passwd.Process(root, name)
	return spec.User{UID: u.UID, GID: u.GID, Groups: u.Groups}, err
}

// makeCwd makes the working folder, with those it is in, for the user. One that is on another
// mount is left to the runtime.
func makeCwd(root *beneath.Root, mounts []specs.Mount, cwd string, u spec.User) error {
	cwd = path.Join("/", cwd)
	if below(cwd, mounts) {
		return nil
	}
	d, _, err := root.MkdirAll(cwd, func(parent *os.File, name, p string) error {
		if err := beneath.WithMode(0o755)(parent, name, p); err != nil {
			return err
		}
		return unix.Fchownat(int(parent.Fd()), name, int(u.UID), int(u.GID), unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return err
	}
	return d.Close()
}

// addMount prepares a mount of the request. What the runtime can mount by itself is left to it;
// the others, and those of a part of a tree, are staged on the host.
func (b *bundle) addMount(i int, m worker.Mount) error {
	ms, release, err := m.Source.Mount()
	if err != nil {
		return err
	}
	b.onClose(release)
	whole := beneath.Clean(m.Selector) == "/"
	if whole && len(ms) == 1 && (ms[0].Type == "bind" || ms[0].Type == "tmpfs") {
		b.mounts = append(b.mounts, specs.Mount{
			Destination: m.Dest, Type: ms[0].Type, Source: ms[0].Source, Options: options(ms[0].Options, m.Readonly),
		})
		return nil
	}
	source := b.path(fmt.Sprintf("mount-%d", i))
	if err := b.mountAt(ms, source); err != nil {
		return err
	}
	if !whole {
		if source, err = b.selectPath(source, m.Selector); err != nil {
			return err
		}
	}
	b.mounts = append(b.mounts, specs.Mount{
		Destination: m.Dest, Type: "bind", Source: source, Options: options([]string{"rbind"}, m.Readonly),
	})
	return nil
}

func options(opts []string, readonly bool) []string {
	out := make([]string, 0, len(opts)+1)
	for _, o := range opts {
		if !readonly || (o != "rw" && o != "ro") {
			out = append(out, o)
		}
	}
	if readonly {
		out = append(out, "ro")
	}
	return out
}

// stage mounts m on dir, and its selected part beside it, and returns where that is.
func (b *bundle) stage(m worker.Mount, dir string) (string, error) {
	ms, release, err := m.Source.Mount()
	if err != nil {
		return "", err
	}
	b.onClose(release)
	if err := b.mountAt(ms, dir); err != nil {
		return "", err
	}
	if beneath.Clean(m.Selector) == "/" {
		return dir, nil
	}
	return b.selectPath(dir, m.Selector)
}

func (b *bundle) mountAt(ms []mount.Mount, dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	b.onClose(func() error { return unmount(dir) })
	return mount.All(ms, dir)
}

// selectPath makes the path selector of the tree that is mounted on dir, links in it resolved within
// the tree, a mount of its own: so that it stays that file whatever happens to the tree's names.
func (b *bundle) selectPath(dir, selector string) (string, error) {
	root, err := beneath.Open(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.Handle(selector, false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	target := dir + ".part"
	if st.IsDir() {
		err = os.Mkdir(target, 0o711)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return "", err
	}
	b.onClose(func() error { return unmount(target) })
	err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", unix.MS_BIND|unix.MS_REC, "")
	if err != nil {
		return "", fmt.Errorf("bind %s: %w", selector, err)
	}
	return target, nil
}

// unmount takes all mounts off p. A mount that is busy goes when it no longer is.
func unmount(p string) error {
	for {
		switch err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil // nothing is mounted any more
		case errors.Is(err, unix.EBUSY):
			if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("unmount %s: %w", p, err)
			}
		case err != nil:
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
}

// removeBundle removes the folder of a container. It does not descend: what is below the folders in
// it, should a mount have stayed, is other people's.
func removeBundle(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(append(errs, os.Remove(dir))...)
}
