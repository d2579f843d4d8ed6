package llb

import (
	"context"
	"fmt"
	"path"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// State is a file tree that is yet to be made, with settings for processes that run in it. The
// zero State is the empty tree. States are values and may be shared between goroutines.
type State struct {
	edge     edge
	settings settings
	deferred *deferred
	err      error
}

// edge is an output of a vertex; the zero edge is the empty tree.
type edge struct {
	vertex vertex
	index  int64
}

// settings are what a process inherits from the State that it runs in. They are never changed in
// place.
type settings struct {
	env          *envNode
	dir          string
	user         string
	hostname     string
	cgroupParent string
	platform     *ocispec.Platform
	network      pb.NetMode
	security     pb.SecurityMode
	extraHosts   []*pb.HostIP
	ulimits      []*pb.Ulimit
	exitCodes    []int32
}

// Scratch returns the empty tree.
func Scratch() State { return State{} }

// failed returns a State whose Marshal returns err.
func failed(err error) State { return State{err: err} }

func newState(v vertex, index int64) State { return State{edge: edge{v, index}} }

// withEdge returns s with another file tree and the same settings.
func (s State) withEdge(v vertex, index int64) State {
	return s.then(func(s State) State {
		s.edge = edge{v, index}
		return s
	})
}

// IsScratch tells whether s is the empty tree. It is false for a State that Async defers, even
// if that turns out to be empty.
func (s State) IsScratch() bool {
	return s.edge.vertex == nil && s.deferred == nil && s.err == nil
}

// StateOption changes a State. Given to Run, it holds for that process only.
type StateOption func(State) State

func (o StateOption) applyRun(r *runInfo) { r.base = o(r.base) }

// With applies options in their order.
func (s State) With(opts ...StateOption) State {
	for _, o := range opts {
		s = o(s)
	}
	return s
}

func (s State) set(f func(*settings)) State {
	return s.then(func(s State) State {
		f(&s.settings)
		return s
	})
}

// AddEnv sets an environment variable.
func (s State) AddEnv(key, value string) State {
	return s.set(func(v *settings) { v.env = v.env.add(key, value) })
}

// AddEnvf sets an environment variable to a formatted value.
func (s State) AddEnvf(key, format string, args ...any) State {
	return s.AddEnv(key, fmt.Sprintf(format, args...))
}

// DelEnv removes an environment variable.
func (s State) DelEnv(key string) State {
	return s.set(func(v *settings) { v.env = v.env.del(key) })
}

// Dir sets the working directory. A relative path is taken from the one set before.
func (s State) Dir(dir string) State {
	return s.set(func(v *settings) { v.dir = absolute(v.dir, dir) })
}

// Dirf sets the working directory to a formatted path.
func (s State) Dirf(format string, args ...any) State { return s.Dir(fmt.Sprintf(format, args...)) }

// User sets the user, as a name or number and optionally a group: "user[:group]".
func (s State) User(user string) State { return s.set(func(v *settings) { v.user = user }) }

// Hostname sets the host name.
func (s State) Hostname(name string) State { return s.set(func(v *settings) { v.hostname = name }) }

// CgroupParent sets the cgroup under which processes get their own.
func (s State) CgroupParent(parent string) State {
	return s.set(func(v *settings) { v.cgroupParent = parent })
}

// Platform sets the platform that processes run for.
func (s State) Platform(p ocispec.Platform) State {
	return s.set(func(v *settings) { v.platform = &p })
}

// Network sets the network mode. pb.NetMode_HOST needs an entitlement.
func (s State) Network(mode pb.NetMode) State { return s.set(func(v *settings) { v.network = mode }) }

// Security sets the security mode. pb.SecurityMode_INSECURE needs an entitlement.
func (s State) Security(mode pb.SecurityMode) State {
	return s.set(func(v *settings) { v.security = mode })
}

// AddExtraHost adds a line to /etc/hosts.
func (s State) AddExtraHost(host, ip string) State {
	return s.set(func(v *settings) {
		v.extraHosts = appendCopy(v.extraHosts, &pb.HostIP{Host: host, IP: ip})
	})
}

// AddUlimit sets a resource limit, such as "nofile".
func (s State) AddUlimit(name string, soft, hard int64) State {
	return s.set(func(v *settings) {
		v.ulimits = appendCopy(v.ulimits, &pb.Ulimit{Name: name, Soft: soft, Hard: hard})
	})
}

// ValidExitCodes replaces the exit codes that count as success, which are {0} by default.
func (s State) ValidExitCodes(codes ...int) State {
	return s.set(func(v *settings) {
		v.exitCodes = make([]int32, len(codes))
		for i, c := range codes {
			v.exitCodes[i] = int32(c)
		}
	})
}

// GetEnv returns an environment variable of s. Options and errors are those of Marshal.
func (s State) GetEnv(ctx context.Context, key string, opts ...MarshalOption) (value string, ok bool, err error) {
	s, err = newResolver(opts).resolve(ctx, s)
	if err != nil {
		return "", false, err
	}
	value, ok = s.settings.env.get(key)
	return value, ok, nil
}

// Env returns the environment of s as "key=value", in the order set.
func (s State) Env(ctx context.Context, opts ...MarshalOption) ([]string, error) {
	s, err := newResolver(opts).resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	return s.settings.env.list(), nil
}

// GetDir returns the working directory of s, "/" if none was set.
func (s State) GetDir(ctx context.Context, opts ...MarshalOption) (string, error) {
	s, err := newResolver(opts).resolve(ctx, s)
	if err != nil {
		return "", err
	}
	return absolute(s.settings.dir, ""), nil
}

// GetUser returns the user of s, empty if none was set.
func (s State) GetUser(ctx context.Context, opts ...MarshalOption) (string, error) {
	s, err := newResolver(opts).resolve(ctx, s)
	return s.settings.user, err
}

// GetPlatform returns the platform of s, nil if none was set.
func (s State) GetPlatform(ctx context.Context, opts ...MarshalOption) (*ocispec.Platform, error) {
	s, err := newResolver(opts).resolve(ctx, s)
	return s.settings.platform, err
}

// AddEnv sets an environment variable.
func AddEnv(key, value string) StateOption {
	return func(s State) State { return s.AddEnv(key, value) }
}

// Dir sets the working directory.
func Dir(dir string) StateOption { return func(s State) State { return s.Dir(dir) } }

// User sets the user.
func User(user string) StateOption { return func(s State) State { return s.User(user) } }

// Hostname sets the host name.
func Hostname(name string) StateOption { return func(s State) State { return s.Hostname(name) } }

// CgroupParent sets the parent of the cgroup of a process.
func CgroupParent(parent string) StateOption {
	return func(s State) State { return s.CgroupParent(parent) }
}

// Network sets the network mode.
func Network(mode pb.NetMode) StateOption { return func(s State) State { return s.Network(mode) } }

// Security sets the security mode.
func Security(mode pb.SecurityMode) StateOption {
	return func(s State) State { return s.Security(mode) }
}

// AddExtraHost adds a line to /etc/hosts.
func AddExtraHost(host, ip string) StateOption {
	return func(s State) State { return s.AddExtraHost(host, ip) }
}

// AddUlimit sets a resource limit.
func AddUlimit(name string, soft, hard int64) StateOption {
	return func(s State) State { return s.AddUlimit(name, soft, hard) }
}

// ValidExitCodes replaces the exit codes that count as success.
func ValidExitCodes(codes ...int) StateOption {
	return func(s State) State { return s.ValidExitCodes(codes...) }
}

// absolute returns p as an absolute clean path, taken from dir if relative.
func absolute(dir, p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", dir, p)
}

// appendCopy appends without sharing the array with s.
func appendCopy[T any](s []T, v ...T) []T { return append(s[:len(s):len(s)], v...) }
