// Package fileop changes file trees the way the file ops of LLB say: copy, mkdir, mkfile, symlink
// and rm.
//
// Plan orders the actions of an op, which form a small graph of their own; Apply does one action
// on trees that are mounted on folders of the host. Neither knows of caches or snapshots: who
// mounts, commits and releases trees is package solver/op. The trees come from images and
// contexts and are taken as hostile: every path is resolved within its tree, and nothing is
// opened that could block. Errors name paths as they are within the tree.
package fileop
