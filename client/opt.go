package client

import (
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/tonistiigi/fsutil"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/policy"
)

// SolveOpt says what a build is made of and what becomes of its result. The zero value builds a
// definition and throws the result away.
type SolveOpt struct {
	// Ref is the id of the build; empty makes a new one.
	Ref string
	// Frontend, its options and its inputs.
	Frontend       string
	FrontendAttrs  map[string]string
	FrontendInputs map[string]*pb.Definition

	Exports      []Export
	CacheExports []CacheOption
	CacheImports []CacheOption

	// LocalMounts are directories by the name of the local source that reads them: those of
	// session/filesync.NewFS, or any others. The caller closes them after the build.
	LocalMounts map[string]fsutil.FS
	// OCIStores are content stores, such as OCI layouts, by the id that sources name.
	OCIStores map[string]content.Store
	// SharedKey tells the daemon which clients have the same files, so that it needs to be sent
	// only changes.
	SharedKey string
	// Session are more services that the daemon may use, see the packages below session: auth for
	// credentials of registries, of which there are none without it, secrets, ssh, upload.
	Session []session.Attachable
	// SharedSession is used instead of a session of the build. Its owner runs it and has allowed
	// all that is needed; LocalMounts, OCIStores, outputs of Exports, SharedKey, CheckSource,
	// ChooseExports and Session must be empty.
	SharedSession *session.Session

	// AllowedEntitlements are the privileges that the build may use.
	AllowedEntitlements []string
	SourcePolicy        *sourcepolicypb.Policy
	// CheckSource, if set, decides on every source that SourcePolicy allows, before it is used: see
	// package session/policy for the answers. Calls come concurrently.
	CheckSource policy.Func
	// SourcePolicySession is the id of another session that is asked in the place of CheckSource.
	SourcePolicySession string
	// ChooseExports, if set, chooses exporters besides Exports once the build is done. Of both at most
	// one writes an OCI layout.
	ChooseExports func(ctx context.Context, f Finished) ([]Export, error)
	// SessionExporter lets a service of Session or SharedSession add exporters in the place of
	// ChooseExports, see package session/exporter.
	SessionExporter bool
	// Internal builds leave no record.
	Internal bool
	// ProxyNetwork sends the network traffic of processes through a proxy that is recorded.
	ProxyNetwork bool
	// CompatibilityVersion pins what may change between versions; 0 is the current one.
	CompatibilityVersion int64

	// Progress receives the events of the build; nil asks for none. It is not used after the
	// build has returned.
	Progress event.Sink
}

// Export is an exporter and where its output goes.
type Export struct {
	Type  string
	Attrs map[string]string
	// Output opens the file that the output is written to, given the exporter's response; it is
	// for the types tar, oci and docker. If it returns nil, the output is not sent.
	Output func(meta map[string]string) (io.WriteCloser, error)
	// OutputDir is the directory that the output is written to, made if missing; it is for the
	// type local, and for oci and docker with the attribute tar=false, which make an OCI layout.
	OutputDir string
}

// CacheOption is a remote cache.
type CacheOption struct {
	Type  string
	Attrs map[string]string
}

// SolveResponse is what a build told in the end.
type SolveResponse struct {
	// Ref is the id of the build.
	Ref string
	// ExporterResponse holds digests and names by keys such as containerimage.digest.
	ExporterResponse map[string]string
}
