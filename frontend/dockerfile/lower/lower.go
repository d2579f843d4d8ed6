// Package lower turns the stages of a Dockerfile into LLB and an image configuration.
//
// It is pure: what has to be fetched (configurations of images, named contexts) is handed out as
// Requests, and the caller answers them. The steps are
//
//	b, err := lower.New(options)        // stages, platforms, what the target depends on
//	for reqs := b.Requests(); len(reqs) > 0; reqs = b.Requests() {
//		for _, r := range reqs {    // answers may bring new requests: ONBUILD triggers
//			err = b.Answer(r, source)
//		}
//	}
//	result, err := b.Finish(ignore)     // expand and lower the stages that are needed
//
// Stages that the target does not depend on are checked for form but neither requested nor
// lowered. Errors carry the lines of the instruction at fault as *parser.Error. Time is linear in
// the number of instructions. A Build is not for concurrent use; several may share Options,
// except for the Linter.
package lower

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// Options is all that a build was asked for.
type Options struct {
	File       *parser.File
	Dockerfile *instruction.Dockerfile
	// Source ties ops to lines of the file; nil ties none.
	Source *llb.SourceMap
	// Linter receives warnings; nil drops them.
	Linter *lint.Linter

	// Target names the stage to build; empty is the last one. AllStages lowers the others too.
	Target         string
	AllStages      bool
	TargetPlatform ocispec.Platform
	BuildPlatform  ocispec.Platform
	// PlatformNames puts the platform into the names of vertices, as is done when several are
	// built for.
	PlatformNames bool

	BuildArgs map[string]string
	// Labels are set on the image over those of the Dockerfile.
	Labels map[string]string
	// NoCache are the stages that ignore the cache, NoCacheAll says all do.
	NoCache    []string
	NoCacheAll bool

	// Context returns the tree of the build context with at least these paths, relative and
	// sorted; nil means everything.
	Context func(paths []string) llb.State
	// Named are the named contexts, which replace stages and images.
	Named NamedContexts

	ResolveMode llb.ResolveMode
	// MergeOp makes COPY --link a merge.
	MergeOp bool
	// Labs allows what is not yet in the stable language; Devices tells that steps can have devices.
	Labs, Devices bool

	// Scan notes which trees the build's arguments ask to be scanned besides the result.
	Scan bool

	// CacheNamespace is the prefix of the ids of cache mounts.
	CacheNamespace string
	Process        Process
}

// Process is what every RUN was told.
type Process struct {
	Hostname     string
	CgroupParent string
	ExtraHosts   []*pb.HostIP
	Ulimits      []*pb.Ulimit
	// ShmSize is the size of /dev/shm in bytes; 0 is the daemon's default.
	ShmSize   int64
	Resources *pb.LinuxResources
	// Network and Security hold where RUN does not say otherwise.
	Network  pb.NetMode
	Security pb.SecurityMode
}

// Result is a lowered target.
type Result struct {
	State    llb.State
	Image    *Image
	Platform ocispec.Platform
	// BaseConfig is the configuration of the base image as JSON; nil without a base image.
	BaseConfig []byte
	// Scanned are stages and contexts to be scanned besides the result, in order.
	Scanned []Scanned
}

// Request asks for an image or for a named context.
type Request struct {
	// Image is the full reference of an image; empty if Context is set.
	Image   string
	Context *NamedContext
	// Platform is the one that the stage is for.
	Platform ocispec.Platform
	// LogName is the name of the vertex that shows the request.
	LogName string

	stages []*stage
}

// Location returns the place in the file that asked first; nil for a request that is not of a file.
func (r *Request) Location() []parser.Range {
	if len(r.stages) == 0 {
		return nil
	}
	return r.stages[0].location
}

// Source answers a Request.
type Source struct {
	// Ref is the image that takes the place of the one asked for; empty if none does.
	Ref string
	// Digest pins an image; empty for a named context.
	Digest digest.Digest
	// State is the tree of a named context.
	State llb.State
	// Config is the image configuration as JSON; nil for a tree without one.
	Config []byte
}

// Build is a Dockerfile on its way to LLB.
type Build struct {
	opt Options
	lex lexer
	// args are the global arguments, defaults the same without the build's own values.
	args, defaults *vars
	declared       map[string]bool

	stages       []*stage
	stagesByName map[string][]*stage
	// images are the trees that instructions name and that are no stages.
	images       []*stage
	imagesByName map[string]*stage
	target       *stage
	// unchecked tells that triggers of images were added since cycles were looked for.
	unchecked bool
	// named tells that vertices are named after their stage.
	named bool

	requests map[requestKey]*Request
	pending  []*Request
	context  *buildContext
	ignore   *patternmatcher.PatternMatcher
	// compared is how often a path was compared with a pattern of it.
	compared int
	params   parameters
	// grown is what the build takes so far, see maxGrowth.
	grown int
	epoch *time.Time
}

// New checks the stages and finds what the target depends on.
func New(opt Options) (*Build, error) {
	b := &Build{
		opt:          opt,
		lex:          lexer{escape: opt.File.Escape},
		stagesByName: map[string][]*stage{},
		imagesByName: map[string]*stage{},
		requests:     map[requestKey]*Request{},
		context:      newBuildContext(opt.Context),
	}
	if err := b.globalArgs(); err != nil {
		return nil, err
	}
	if err := b.addStages(); err != nil {
		return nil, err
	}
	if err := b.pickTarget(); err != nil {
		return nil, err
	}
	if err := b.checkCycles(); err != nil {
		return nil, err
	}
	if opt.AllStages {
		for _, s := range b.stages {
			if err := b.reach(s); err != nil {
				return nil, err
			}
		}
	}
	return b, b.reach(b.target)
}

// Requests returns what is to be answered next; nothing means that Finish may be called.
func (b *Build) Requests() []*Request {
	reqs := b.pending
	b.pending = nil
	return reqs
}

// Finish lowers the target. Ignore matches what the build context leaves out; nil leaves nothing
// out.
func (b *Build) Finish(ignore *patternmatcher.PatternMatcher) (*Result, error) {
	b.ignore = ignore
	// A context that stands for a stage is there before any instruction runs, and so is an image.
	trees := slices.Concat(b.images, b.stages)
	slices.SortStableFunc(trees, func(x, y *stage) int { return cmp.Compare(x.rank(), y.rank()) })
	for _, s := range trees {
		if !s.reached {
			continue
		}
		if err := b.lowerStage(s); err != nil {
			return nil, err
		}
	}
	t := b.target
	for k, v := range b.opt.Labels {
		t.image.setLabel(k, v)
	}
	t.image.Created = b.epoch
	t.image.Config.Env = t.imageEnv.list()
	t.image.History = append(slices.Clip(t.image.History), t.history.list()...)
	return &Result{
		State: t.state, Image: t.image, Platform: t.platform, BaseConfig: t.baseConfig, Scanned: b.scanned(),
	}, nil
}

// Marshal returns the definition of the result.
func (r *Result) Marshal(ctx context.Context) (*pb.Definition, error) {
	return r.marshal(ctx, r.State)
}

// marshal returns the definition of a tree. Its vertices are those of the result where the two have
// some in common.
func (r *Result) marshal(ctx context.Context, s llb.State) (*pb.Definition, error) {
	return s.Marshal(ctx, llb.Platform(r.Platform))
}

// Config returns the image configuration as JSON.
func (r *Result) Config() ([]byte, error) { return json.Marshal(r.Image) }

// Ranges converts places in a file to their wire form.
func Ranges(location []parser.Range) []*pb.Range {
	out := make([]*pb.Range, 0, len(location))
	for _, r := range location {
		out = append(out, &pb.Range{Start: position(r.Start), End: position(r.End)})
	}
	return out
}

func position(p parser.Position) *pb.Position {
	return &pb.Position{Line: int32(p.Line), Character: int32(p.Column)}
}
