// Package worker is what executes the steps of a build: it knows which platforms it can run,
// resolves and fetches sources, runs containers, changes file trees, and keeps them in its cache.
//
// A Worker is put together by a package for each kind of runtime (worker/runc) and used by
// solver/op and the daemon's control service. It decides nothing about what has to run: keys,
// order, sharing and entitlements are the solver's. Everything that reaches it comes from a
// client and is taken as hostile: paths are opened beneath a root, containers are isolated.
package worker

import (
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/checksum"
	"github.com/openbuildkit/buildkit/worker/device"
	"github.com/openbuildkit/buildkit/worker/platform"
	"github.com/openbuildkit/buildkit/worker/source"
)

// LabelPrefix is the prefix of the labels that every worker has.
const LabelPrefix = "org.mobyproject.buildkit.worker."

// Worker is a set of abilities under one id, with one cache. It is not changed after start, but
// for what the host can run.
type Worker struct {
	ID     string
	Labels map[string]string
	// Platforms that can be run.
	Platforms platform.Set
	Cache     *cache.Manager
	// Checksums digests trees of Cache.
	Checksums *checksum.Cache
	// Sources by URL scheme.
	Sources source.Registry
	Runtime Runtime
	// Devices that processes may ask for; nil are none.
	Devices *device.Registry
	// SecretDir is a folder of the host below which secrets are mounted while they are in use.
	SecretDir string
	// TraceSocket is the host's socket that processes send traces to; empty if there is none.
	TraceSocket string
	// MaxParallelism bounds exec and file ops that run at once; 0 is unlimited.
	MaxParallelism int
	// CgroupParent is used by containers that name none.
	CgroupParent string
}
