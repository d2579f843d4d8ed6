package gateway

import (
	"context"
	"io"
	"syscall"

	fstypes "github.com/tonistiigi/fsutil/types"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Container is a sandbox of a frontend. The first process started in it is its init; when that
// ends, so do the others.
type Container interface {
	// Start starts a process and returns once it runs. It is killed when ctx ends. The streams are
	// the process's from then on, also if it does not start: they are closed at its end.
	Start(ctx context.Context, req StartRequest) (Process, error)
	// ReadFile, ReadDir and StatFile read the tree of a mount as it is now, as those of a Reference
	// do. The index of the mount is that in the request; only trees and cache mounts can be read.
	ReadFile(ctx context.Context, mount int, req ReadRequest) ([]byte, error)
	ReadDir(ctx context.Context, mount int, req ReadDirRequest) ([]*fstypes.Stat, error)
	StatFile(ctx context.Context, mount int, path string) (*fstypes.Stat, error)
	// Release ends all processes and discards the container's file trees.
	Release(ctx context.Context) error
}

// Process is a process of a Container.
type Process interface {
	// Wait returns once the process has ended and its output is drained. The error of a process
	// that ended with another code than 0 is a *status.ExitError.
	Wait() error
	Resize(ctx context.Context, size WindowSize) error
	Signal(ctx context.Context, sig syscall.Signal) error
}

// NewContainerRequest describes a sandbox.
type NewContainerRequest struct {
	Mounts      []Mount
	NetMode     pb.NetMode
	Platform    *pb.Platform
	Constraints *pb.WorkerConstraints
	ExtraHosts  []*pb.HostIP
	Hostname    string
}

// Mount is a file tree of a container: a reference, or the result id that a failed solve named.
type Mount struct {
	Selector  string
	Dest      string
	ResultID  string
	Ref       Reference
	Readonly  bool
	MountType pb.MountType
	TmpfsOpt  *pb.TmpfsOpt
	CacheOpt  *pb.CacheOpt
	SecretOpt *pb.SecretOpt
	SSHOpt    *pb.SSHOpt
}

// StartRequest describes a process. Nil streams are closed.
type StartRequest struct {
	Args                      []string
	Env                       []string
	SecretEnv                 []*pb.SecretEnv
	User                      string
	Cwd                       string
	Tty                       bool
	Stdin                     io.ReadCloser
	Stdout, Stderr            io.WriteCloser
	SecurityMode              pb.SecurityMode
	RemoveMountStubsRecursive bool
}

// WindowSize is the size of a terminal in characters.
type WindowSize struct {
	Rows, Cols uint32
}
