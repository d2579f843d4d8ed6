// Package layer turns what one snapshot changes in its parent into a tar archive and back.
//
// An archive is written either from the upper folder of an overlay stack (WriteUpper) or by
// comparing two whole trees (WriteChanges); both give the same bytes for the same change, at any
// time and on any machine: names are sorted, removals are explicit ".wh." entries that come at
// their name's place, times are cut to seconds, and nothing comes from the host's user database.
// Apply is the opposite. It trusts nothing in an archive: names and links that lead out of the
// tree are resolved inside it, as chroot would.
//
// The format is that of the OCI image specification, "Image Layer Filesystem Changeset". The
// package knows folders only; mounts, snapshots and blobs are the business of its callers, the
// snapshotters and package cache.
package layer
