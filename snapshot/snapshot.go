// Package snapshot is the contract of file trees on disk, over containerd's snapshotters.
//
// Words, as there: a snapshot has a name and perhaps a parent; it is active while it is written
// and committed afterwards. A Store is all snapshots of one folder, kept by a Driver, which wraps
// one of containerd's snapshotters (overlay, native); every driver runs the conformance suite of
// snapshottest. On top of what those do, a committed tree can be shown without a snapshot made for
// it, a build step costs one transaction, chains may be longer than overlay can stack, and the layer
// of a snapshot can be written as an archive.
//
// Nothing here is ever collected: who made a snapshot, package cache, removes it, and after a
// crash removes those that it knows nothing of.
package snapshot

import "github.com/containerd/containerd/v2/core/mount"

// Mountable is a tree that can be mounted, any number of times.
type Mountable interface {
	// Mount returns the mounts that make the tree, to be mounted in order on one folder, and the
	// function that ends the use. The tree stays until release is called.
	Mount() (mounts []mount.Mount, release func() error, err error)
}
