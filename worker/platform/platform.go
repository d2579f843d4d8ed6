// Package platform tells which platforms a host can run: what its processor runs by itself, and
// what an emulator runs that is registered with the kernel's binfmt_misc.
//
// An emulator counts if containers can use it: they do not see the host's files, so the kernel must
// have opened the emulator when it was registered (flag F). Registrations are read from the kernel,
// wherever the process may; where it may not, as in a user namespace, tiny programs of our own
// (see program) are tried instead.
//
// Nothing is read before it is asked for. Answers are kept for some time, since every client asks
// for the list before it builds, but Explain always looks again.
package platform

import (
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Set is a number of platforms that can be run. Methods may be called concurrently.
type Set interface {
	// Default is the platform of what names none.
	Default() ocispec.Platform
	// List returns all platforms, the default first. The caller may keep it, but not change it.
	List() []ocispec.Platform
	// Explain returns why a process of p could not be executed, as an error for who wanted it to
	// be; nil if nothing is known to be in its way.
	Explain(p ocispec.Platform) error
}

// Parse reads names of platforms, such as linux/arm/v7.
func Parse(names []string) ([]ocispec.Platform, error) {
	out := make([]ocispec.Platform, len(names))
	for i, name := range names {
		p, err := platforms.Parse(name)
		if err != nil {
			return nil, err
		}
		out[i] = platforms.Normalize(p)
	}
	return out, nil
}
