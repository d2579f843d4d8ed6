package llb

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/shlex"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// RunOption changes how a process is run.
type RunOption interface {
	applyRun(*runInfo)
}

type runInfo struct {
	constraints opConstraints
	// base is the State that the process runs in, as changed by options for this process.
	base State
	args []string
	// readonlyRoot keeps the process from changing its root.
	readonlyRoot bool
	proxy        *pb.ProxyEnv
	removeStubs  bool
	mounts       []mount
	secrets      []secret
	sshSockets   []sshSocket
	devices      []*pb.CDIDevice
	err          error
}

type runOpt func(*runInfo)

func (o runOpt) applyRun(r *runInfo) { o(r) }

// Run runs a process in s.
func (s State) Run(opts ...RunOption) ExecState {
	info := runInfo{base: s}
	for _, o := range opts {
		o.applyRun(&info)
	}
	return newExecState(s, newExecOp(info))
}

// RunOptions applies several options as one.
func RunOptions(opts ...RunOption) RunOption {
	return runOpt(func(r *runInfo) {
		for _, o := range opts {
			o.applyRun(r)
		}
	})
}

// Args sets the command and its arguments.
func Args(args ...string) RunOption { return runOpt(func(r *runInfo) { r.args = args }) }

// Shlex sets the command from a line that is split as a shell would. There is no shell.
func Shlex(line string) RunOption {
	return runOpt(func(r *runInfo) {
		args, err := shlex.Split(line)
		if err != nil {
			r.err = fmt.Errorf("split command %q: %w", line, err)
		}
		r.args = args
	})
}

// Shlexf sets the command from a formatted line.
func Shlexf(format string, args ...any) RunOption { return Shlex(fmt.Sprintf(format, args...)) }

// Shell runs a line with /bin/sh -c.
func Shell(line string) RunOption { return Args("/bin/sh", "-c", line) }

// ReadonlyRoot makes the root read-only. Root then yields the tree as it was.
func ReadonlyRoot() RunOption { return runOpt(func(r *runInfo) { r.readonlyRoot = true }) }

// ProxyEnv holds proxies, set in the environment but not part of the identity of an op. It is an
// option of Run.
type ProxyEnv struct {
	HTTP, HTTPS, FTP, No, All string
}

func (p ProxyEnv) applyRun(r *runInfo) {
	r.proxy = &pb.ProxyEnv{
		HttpProxy:  p.HTTP,
		HttpsProxy: p.HTTPS,
		FtpProxy:   p.FTP,
		NoProxy:    p.No,
		AllProxy:   p.All,
	}
}

// RemoveMountStubsRecursive also removes the parents of mount points that were made for the run.
func RemoveMountStubsRecursive() RunOption {
	return runOpt(func(r *runInfo) { r.removeStubs = true })
}

// AddCDIDevice makes a device available, named as "vendor/class=name" or shorter.
func AddCDIDevice(name string, optional bool) RunOption {
	return runOpt(func(r *runInfo) {
		r.devices = appendCopy(r.devices, &pb.CDIDevice{Name: name, Optional: optional})
	})
}

// mount is a file tree in the root of a process.
type mount struct {
	target       string
	source       State
	selector     string
	readonly     bool
	noOutput     bool
	cache        *pb.CacheOpt
	tmpfs        *pb.TmpfsOpt
	contentCache pb.MountContentCache
	// output is the output of the op that holds the tree after the run, or pb.NoOutput.
	output int64
}

// MountOption changes a mount.
type MountOption func(*mount)

// AddMount mounts a tree at target. After the run, ExecState.GetMount yields it as changed.
func AddMount(target string, source State, opts ...MountOption) RunOption {
	return runOpt(func(r *runInfo) { r.addMount(target, source, opts) })
}

func (r *runInfo) addMount(target string, source State, opts []MountOption) {
	m := mount{target: target, source: source}
	for _, o := range opts {
		o(&m)
	}
	r.mounts = appendCopy(r.mounts, m)
}

// Readonly makes a mount read-only.
func Readonly() MountOption { return func(m *mount) { m.readonly = true } }

// SourcePath mounts a directory or file of the tree rather than all of it.
func SourcePath(p string) MountOption { return func(m *mount) { m.selector = p } }

// ForceNoOutput discards what a process writes to a mount.
func ForceNoOutput() MountOption { return func(m *mount) { m.noOutput = true } }

// CacheSharing says what happens when several processes use one cache directory.
type CacheSharing = pb.CacheSharingOpt

// Ways of sharing: all at once, a new one for each, one after the other.
const (
	CacheShared  CacheSharing = pb.CacheSharingOpt_SHARED
	CachePrivate CacheSharing = pb.CacheSharingOpt_PRIVATE
	CacheLocked  CacheSharing = pb.CacheSharingOpt_LOCKED
)

// PersistentCache makes a mount a directory that outlives the build. The tree is its first
// content.
func PersistentCache(id string, sharing CacheSharing) MountOption {
	return func(m *mount) { m.cache = &pb.CacheOpt{ID: id, Sharing: sharing} }
}

// Tmpfs makes a mount an empty file system in memory. A size of 0 bytes sets no limit.
func Tmpfs(size int64) MountOption {
	return func(m *mount) { m.tmpfs = &pb.TmpfsOpt{Size: size} }
}

// ContentCache says whether the contents of a mount, rather than its definition, decide on a
// cache hit.
func ContentCache(mode pb.MountContentCache) MountOption {
	return func(m *mount) { m.contentCache = mode }
}

// secret is a secret as a file or as an environment variable.
type secret struct {
	id     string
	target string
	env    string
	file   FileMeta
	// optional keeps the process going if the client has no such secret.
	optional bool
}

// FileMeta is the owner and the permissions of a file.
type FileMeta struct {
	UID, GID int
	Mode     fs.FileMode
}

// SecretOption changes a secret.
type SecretOption func(*secret)

// AddSecret makes a secret available as a file. Its id is the target unless SecretID says
// otherwise.
func AddSecret(target string, opts ...SecretOption) RunOption {
	return runOpt(func(r *runInfo) {
		s := secret{id: target, target: target, file: FileMeta{Mode: 0o400}}
		for _, o := range opts {
			o(&s)
		}
		r.secrets = appendCopy(r.secrets, s)
	})
}

// AddSecretEnv makes a secret available as an environment variable. Its id is the name unless
// SecretID says otherwise.
func AddSecretEnv(name string, opts ...SecretOption) RunOption {
	return runOpt(func(r *runInfo) {
		s := secret{id: name, env: name}
		for _, o := range opts {
			o(&s)
		}
		r.secrets = appendCopy(r.secrets, s)
	})
}

// SecretID names the secret.
func SecretID(id string) SecretOption { return func(s *secret) { s.id = id } }

// SecretOptional keeps the process going without the secret.
func SecretOptional() SecretOption { return func(s *secret) { s.optional = true } }

// SecretFile sets owner and permissions of the file, which are 0:0 and 0400 otherwise.
func SecretFile(meta FileMeta) SecretOption { return func(s *secret) { s.file = meta } }

// SecretAsEnv makes the secret available as an environment variable as well.
func SecretAsEnv(name string) SecretOption { return func(s *secret) { s.env = name } }

type sshSocket struct {
	id       string
	target   string
	file     FileMeta
	optional bool
}

// SSHOption changes an ssh agent socket.
type SSHOption func(*sshSocket)

// AddSSHSocket forwards an ssh agent of the client. The first one is named in SSH_AUTH_SOCK,
// unless that is set.
func AddSSHSocket(opts ...SSHOption) RunOption {
	return runOpt(func(r *runInfo) {
		s := sshSocket{target: fmt.Sprintf("/run/buildkit/ssh_agent.%d", len(r.sshSockets)), file: FileMeta{Mode: 0o600}}
		for _, o := range opts {
			o(&s)
		}
		r.sshSockets = appendCopy(r.sshSockets, s)
	})
}

// SSHID names the agent; the default agent has no name.
func SSHID(id string) SSHOption { return func(s *sshSocket) { s.id = id } }

// SSHTarget sets the path of the socket.
func SSHTarget(p string) SSHOption {
	return func(s *sshSocket) {
		if strings.TrimSpace(p) != "" {
			s.target = p
		}
	}
}

// SSHFile sets owner and permissions of the socket, which are 0:0 and 0600 otherwise.
func SSHFile(meta FileMeta) SSHOption { return func(s *sshSocket) { s.file = meta } }

// SSHOptional keeps the process going without the agent.
func SSHOptional() SSHOption { return func(s *sshSocket) { s.optional = true } }
