// Package snapshot is the contract of file trees on disk, over containerd's snapshotters.
//
// Words, as there: a snapshot has a name and perhaps a parent; it is active while it is written
// and committed afterwards. This package adds what a builder needs on top: leases on every
// snapshot (nothing is collected while a build can reach it), mounts with a lifetime, the choice
// of a snapshotter for a root folder, and the flattening of chains that are longer than overlay
// can stack. Snapshotters themselves are containerd's (overlay, native) or wrap one; every
// implementation runs the conformance suite of snapshottest.
package snapshot

import "github.com/containerd/containerd/v2/core/mount"

// Mountable is a tree that can be mounted, any number of times.
type Mountable interface {
	// Mount returns the mounts that make the tree, to be mounted in order on one folder, and the
	// function that ends the use. The tree stays until release is called.
	Mount() (mounts []mount.Mount, release func() error, err error)
}
