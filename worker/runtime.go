package worker

import (
	"context"
	"io"
	"syscall"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/usage"
)

// Runtime runs processes in containers. It is all that a worker wants of what is behind it: no
// bundle, state folder or output format of a runtime is visible above. Containers are isolated
// from the host and from each other by namespaces, seccomp, dropped capabilities and masked paths,
// unless Security asks otherwise, which the caller has checked against the entitlements.
type Runtime interface {
	// Run makes the container c with the process p as its init, waits for its end and removes
	// every trace of it: processes, mounts, cgroup, state. started is closed when the process
	// runs; it may be nil. A process that ends with a code that is not valid (see Process) is a
	// *status.ExitError. When ctx ends the container is killed and the error is ctx's cause.
	Run(ctx context.Context, c Container, p Process, started chan<- struct{}) error
	// Exec runs another process in the running container id. It ends when the init ends.
	Exec(ctx context.Context, id string, p Process) error
}

// Container is the sandbox of processes.
type Container struct {
	// ID is unique among live containers; empty asks the runtime for one.
	ID string
	// Root is mounted at /, Mounts above it in order of their destinations.
	Root         Mount
	Mounts       []Mount
	ReadonlyRoot bool
	Hostname     string
	ExtraHosts   []*pb.HostIP
	Network      pb.NetMode
	Security     pb.SecurityMode
	CgroupParent string
	Ulimits      []*pb.Ulimit
	Resources    *pb.LinuxResources
	Devices      []*pb.CDIDevice
	// Usage takes samples of what the processes of the container use; nil for none.
	Usage *usage.Step
	// RemoveStubsRecursive removes also the parents that were made for mount points.
	RemoveStubsRecursive bool
}

// Mount is a tree at a place in a container.
type Mount struct {
	Source snapshot.Mountable
	// Selector is a path below the source's root; empty is the root.
	Selector string
	// Dest is absolute and clean.
	Dest     string
	Readonly bool
}

// Process is a process of a container.
type Process struct {
	Args []string
	// Env is K=V, the last of equal keys wins. PATH must be there if wanted.
	Env  []string
	User string
	// Cwd is made, owned by the process's user, if it is not there.
	Cwd string
	// Stdin may be nil. Stdout and Stderr may be nil to discard.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Tty gives the process a terminal; its output goes to Stdout alone.
	Tty    bool
	Resize <-chan WindowSize
	Signal <-chan syscall.Signal
	// ValidExitCodes replace {0} if set.
	ValidExitCodes []int32
	// Security is that of a process of Exec; an init has the one of its container.
	Security pb.SecurityMode
}

// WindowSize is the size of a terminal in characters.
type WindowSize struct{ Rows, Cols uint32 }
