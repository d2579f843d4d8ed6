// Package testimage makes the base images of tests and of the quickstart, on the spot and without
// a registry to pull from: busybox from Debian's busybox-static, also of other platforms, images that
// differ from it in their configuration, a Debian with a
// C compiler, and one with the Go toolchain.
//
// Images are made the same, byte for byte, from the same busybox. Making one needs no privilege,
// but for Debian and busybox of other platforms, which mmdebstrap makes. Nothing here serves an image; Push sends it to a
// registry that somebody started.
package testimage
