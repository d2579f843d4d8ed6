// Package network gives containers what they are connected to: the host's network, nothing, or a
// network that CNI plugins set up.
//
// A provider makes namespaces and takes them back; it starts no process in them. The runtime
// acquires one for each container and releases it when the container is gone.
package network

import (
	"context"
	"errors"
	"fmt"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Namespace is what one container is connected to. With Host it is the daemon's own; with Path the
// one at that path; with neither the runtime makes one that has a loopback interface only.
type Namespace struct {
	Host bool
	Path string
	// Release gives it back. It may be nil, and is called once, after the container is gone.
	Release func() error
}

// Provider is a kind of network. Its methods may be called concurrently.
type Provider interface {
	// Acquire returns a namespace for one container. hostname is for those that register names.
	Acquire(ctx context.Context, hostname string) (Namespace, error)
	// Close releases what is kept ready. Namespaces in use stay usable.
	Close() error
}

// Providers are those of a worker.
type Providers struct {
	// Default serves steps that ask for nothing.
	Default Provider
}

// ErrUnknownMode is wrapped by For's error.
var ErrUnknownMode = errors.New("unknown network mode")

// For returns the provider that serves a mode.
func (p Providers) For(mode pb.NetMode) (Provider, error) {
	switch mode {
	case pb.NetMode_UNSET:
		if p.Default == nil {
			return Host(), nil
		}
		return p.Default, nil
	case pb.NetMode_HOST:
		return Host(), nil
	case pb.NetMode_NONE:
		return None(), nil
	}
	return nil, fmt.Errorf("%w %v", ErrUnknownMode, mode)
}

type fixed Namespace

func (f fixed) Acquire(context.Context, string) (Namespace, error) { return Namespace(f), nil }
func (f fixed) Close() error                                       { return nil }

// Host returns the provider of the daemon's own network.
func Host() Provider { return fixed{Host: true} }

// None returns the provider of namespaces with a loopback interface and nothing else.
func None() Provider { return fixed{} }
