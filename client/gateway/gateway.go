// Package gateway is what a frontend may ask of a daemon: the client of the gateway API.
//
// The interface Client has three implementations: the daemon's own bridge (for built-in
// frontends), a connection to a daemon's socket with a build id (for frontends that run on the
// client's side), and the standard streams of a frontend container. A frontend is a BuildFunc
// and runs unchanged on any of them. The package does not parse Dockerfiles, does not open
// sessions and does not display progress.
package gateway

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
)

// BuildFunc is a frontend: it asks c for what it needs and returns a result. A nil Result with a
// nil error is an empty, successful build.
type BuildFunc func(ctx context.Context, c Client) (*Result, error)

// Client is a daemon as a frontend sees it. Methods may be called concurrently. Errors carry
// their gRPC status and the typed details of package status.
type Client interface {
	// Solve asks for the result of a definition or of another frontend. Nothing is executed
	// until a reference of the result is read, evaluated or exported, unless req.Evaluate.
	Solve(ctx context.Context, req SolveRequest) (*Result, error)
	// ResolveSourceMeta resolves a source to what identifies it: an image to its digest and
	// config, a git reference to a commit.
	ResolveSourceMeta(ctx context.Context, op *pb.SourceOp, opt ResolveOpt) (*SourceMeta, error)
	// BuildOpts tells what the build was asked for and what the daemon is able to do. The value
	// is shared: callers do not change it.
	BuildOpts() BuildOpts
	// Inputs returns the definitions that were given to the frontend, by name; nil if none.
	Inputs(ctx context.Context) (map[string]*pb.Definition, error)
	// NewContainer prepares a container. The caller releases it.
	NewContainer(ctx context.Context, req NewContainerRequest) (Container, error)
	// Warn sends a warning, tied to the vertex named dgst.
	Warn(ctx context.Context, dgst digest.Digest, msg string, opt WarnOpt) error
}

// Reference is one file tree of a result, not necessarily computed yet.
type Reference interface {
	// Definition returns the LLB that yields the tree; nil if the daemon does not tell.
	Definition() *pb.Definition
	// Evaluate computes the tree.
	Evaluate(ctx context.Context) error
	// ReadFile returns a file, or the part of it that req.Range names.
	ReadFile(ctx context.Context, req ReadRequest) ([]byte, error)
	// ReadDir lists a directory, sorted by name, not recursively.
	ReadDir(ctx context.Context, req ReadDirRequest) ([]*fstypes.Stat, error)
	// StatFile describes a path without following a symbolic link at its end.
	StatFile(ctx context.Context, path string) (*fstypes.Stat, error)
}

// Result is what a frontend returns: one reference or one per platform, and metadata.
type Result struct {
	// Ref is the only reference; nil if Refs is used or the result is empty.
	Ref Reference
	// Refs are references by platform id, named in the metadata key refs.platforms. A nil value
	// is an empty tree.
	Refs map[string]Reference
	// Metadata holds image configs and more, see package exporter for the keys with a meaning.
	Metadata map[string][]byte
	// Attestations is what is said of the result, by platform id.
	Attestations map[string][]Attestation
}

// SetMeta sets a metadata key.
func (r *Result) SetMeta(key string, value []byte) {
	if r.Metadata == nil {
		r.Metadata = map[string][]byte{}
	}
	r.Metadata[key] = value
}

// AddRef sets the reference of a platform id.
func (r *Result) AddRef(id string, ref Reference) {
	if r.Refs == nil {
		r.Refs = map[string]Reference{}
	}
	r.Refs[id] = ref
}

// AddAttestations adds what is said of the part of a platform id.
func (r *Result) AddAttestations(id string, list []Attestation) {
	if len(list) == 0 {
		return
	}
	if r.Attestations == nil {
		r.Attestations = map[string][]Attestation{}
	}
	r.Attestations[id] = append(r.Attestations[id], list...)
}

// SingleRef returns Ref. It is an error if the result has one reference per platform.
func (r *Result) SingleRef() (Reference, error) {
	if r.Refs != nil && r.Ref == nil {
		return nil, errMultipleRefs
	}
	return r.Ref, nil
}

// EachRef calls fn for every reference that is not nil, the single one or those of the platforms
// in the order of their ids, and stops at the first error.
func (r *Result) EachRef(fn func(id string, ref Reference) error) error {
	if r.Ref != nil {
		if err := fn("", r.Ref); err != nil {
			return err
		}
	}
	for _, id := range sortedKeys(r.Refs) {
		if ref := r.Refs[id]; ref != nil {
			if err := fn(id, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// Attestation is a statement on a result, as a file in a reference.
type Attestation struct {
	Kind          gatewaypb.AttestationKind
	Metadata      map[string][]byte
	Ref           Reference
	Path          string
	PredicateType string
	Subjects      []Subject
}

// Subject is what an attestation speaks of.
type Subject struct {
	Kind   gatewaypb.InTotoSubjectKind
	Name   string
	Digest []digest.Digest
}

// SolveRequest asks for a result: of Definition, or of Frontend with its options and inputs. With
// neither, the result is empty; both together are an error.
type SolveRequest struct {
	Definition     *pb.Definition
	Frontend       string
	FrontendOpt    map[string]string
	FrontendInputs map[string]*pb.Definition
	CacheImports   []CacheImport
	// Evaluate computes the result before Solve returns.
	Evaluate       bool
	SourcePolicies []*sourcepolicypb.Policy
}

// CacheImport names a remote cache to look in.
type CacheImport struct {
	Type  string
	Attrs map[string]string
}

// ResolveOpt says how a source is resolved.
type ResolveOpt struct {
	// Platform picks from a multi-platform image; nil is the daemon's default.
	Platform *ocispec.Platform
	// LogName is the name of the vertex shown meanwhile; empty shows the source.
	LogName string
	// ResolveMode is default, pull or local; empty is default.
	ResolveMode    string
	SourcePolicies []*sourcepolicypb.Policy
	// NoConfig leaves the image config out.
	NoConfig bool
	// AttestationChain has what is said of an image and who signed that returned, with the statements
	// of the predicate types in Attestations.
	AttestationChain bool
	Attestations     []string
	// HTTPChecksum has the file of a url hashed in another way; nil if that is not wanted.
	HTTPChecksum *gatewaypb.ChecksumRequest
	// GitObject has the commit, and the tag if there is one, returned as git stores them.
	GitObject bool
}

// SourceMeta identifies a source. Op is the source after policies were applied; of the others,
// the one of the source's kind is set.
type SourceMeta struct {
	Op    *pb.SourceOp
	Image *ImageMeta
	Git   *gatewaypb.ResolveSourceGitResponse
	HTTP  *gatewaypb.ResolveSourceHTTPResponse
}

// ImageMeta identifies an image: its digest and, unless left out, its config as JSON. Attestations is
// nil unless asked for.
type ImageMeta struct {
	Digest       digest.Digest
	Config       []byte
	Attestations *gatewaypb.AttestationChain
}

// BuildOpts is what a frontend knows of the build from the start.
type BuildOpts struct {
	// Opts are the frontend's options.
	Opts      map[string]string
	SessionID string
	Workers   []WorkerInfo
	Product   string
	// LLBCaps and Caps are the ids of the capabilities that the daemon has, for LLB and for the
	// gateway API.
	LLBCaps map[string]bool
	Caps    map[string]bool
}

// WorkerInfo describes a worker of the daemon; the first one is the default.
type WorkerInfo struct {
	ID        string             `json:"id"`
	Labels    map[string]string  `json:"labels"`
	Platforms []ocispec.Platform `json:"platforms"`
}

// ReadRequest names a file and, if Range is set, a part of it.
type ReadRequest struct {
	Filename string
	Range    *FileRange
}

// FileRange is a window of a file in bytes.
type FileRange struct {
	Offset, Length int64
}

// ReadDirRequest names a directory. IncludePattern, if set, is matched against base names.
type ReadDirRequest struct {
	Path           string
	IncludePattern string
}

// WarnOpt is the rest of a warning.
type WarnOpt struct {
	// Level orders warnings by weight; 0 is taken as 1.
	Level  int
	Detail [][]byte
	URL    string
	Source *pb.SourceInfo
	Ranges []*pb.Range
}
