// Package frontend is the contract of what turns a user's build description into LLB.
//
// A Frontend is given a Bridge and nothing else: through that it reads files, resolves images and
// solves definitions. The Bridge is the gateway client interface, so that one frontend runs
// built into the daemon, on a client's side and inside a container. The packages below hold the
// Dockerfile frontend, the gateway server that lets frontends outside of the daemon in, and the
// frontend that runs images. Frontends know neither solver nor worker.
package frontend

import (
	"context"
	"io"

	"github.com/openbuildkit/buildkit/client/gateway"
)

// Bridge is what a frontend may ask for.
type Bridge = gateway.Client

// Frontend produces the result of a build.
type Frontend = gateway.BuildFunc

// Registry holds the frontends of a daemon by name, such as dockerfile.v0.
type Registry map[string]Frontend

// Runner runs programs in containers. The bridge of a daemon is one; that of a client is not.
type Runner interface {
	// RunProgram runs p until it ends, and removes every trace of it. A program that ends with
	// another code than 0 is a *status.ExitError; when ctx ends it is killed and the error is
	// ctx's cause.
	RunProgram(ctx context.Context, p Program) error
}

// Program is a frontend that is a program in a container.
type Program struct {
	// Name is shown with its output.
	Name string
	// Root is the tree it runs in, a reference of the Runner's own. It may be written to; what is
	// written goes with the program.
	Root gateway.Reference
	// Files are read-only files of the container by their absolute paths.
	Files map[string][]byte
	// Args are the program and its arguments, Env is K=V, Cwd absolute.
	Args []string
	Env  []string
	Cwd  string
	// NoNetwork leaves the program alone with a loopback interface.
	NoNetwork bool
	// MaxMemory in bytes is what the container may use; 0 is all there is.
	MaxMemory int64
	// Stdin and Stdout are the streams of its protocol. Stderr gets a copy of what the user is
	// shown.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}
