package provenance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/usage"
)

const (
	buildTypeV1  = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
	buildTypeV02 = "https://mobyproject.org/buildkit@v1"
)

// Build is a build that has made a part of a result.
type Build struct {
	// ID names this very build.
	ID                string
	Started, Finished time.Time
	// Platform is that of the builder.
	Platform ocispec.Platform
	// Env is what the administrator has told about the builder.
	Env map[string]any
	// Dockerfile is the version of the language that the built-in frontend reads; it is told if that had a
	// part in the build.
	Dockerfile string

	Capture *Capture
	// Definition is the graph of the part. Layers returns what is known of the outputs of a vertex as layers,
	// by the output's index, lowest first; it may be nil. Both are told in the longer mode only.
	Definition *pb.Definition
	Layers     func(vertex digest.Digest) [][]ocispec.Descriptor
	// MaxLayers is how many descriptors of layers are told: a step is told with all that it stands on, so
	// there are many more of them than layers, of some 150 bytes each. 0 tells none.
	MaxLayers int
	// Usage is what vertices took that ran, System what the machine did meanwhile; they are told if
	// that was asked for.
	Usage  map[digest.Digest]*usage.Samples
	System []*usage.SysSample
}

// reserved are the keys that an Env must not have.
var reserved = []string{"buildConfig", "builderPlatform", "platform"}

// CheckEnv refuses keys that have a meaning of their own.
func CheckEnv(env map[string]any) error {
	for _, k := range reserved {
		if _, ok := env[k]; ok {
			return fmt.Errorf("key %q of the provenance environment is reserved", k)
		}
	}
	return nil
}

type metadata struct {
	VCS    map[string]string                 `json:"vcs,omitempty"`
	Source *sources                          `json:"source,omitempty"`
	Layers map[string][][]ocispec.Descriptor `json:"layers,omitempty"`
	System []*usage.SysSample                `json:"sysUsage,omitempty"`
}

// facts is what both versions tell.
type facts struct {
	materials []material
	request   told
	config    *buildConfig
	meta      metadata
	complete  bool
	hermetic  bool
	started   *time.Time
	finished  *time.Time
}

func (b *Build) facts(opt Options) (*facts, error) {
	c := b.Capture
	f := &facts{started: utc(b.Started), finished: utc(b.Finished)}
	var err error
	if f.materials, err = c.list(); err != nil {
		return nil, err
	}
	f.request = tell(&c.Request, f.materials, opt.Max)
	for _, name := range c.locals() {
		f.request.params.Locals = append(f.request.params.Locals, local{name})
	}
	f.request.params.Compatibility = c.Request.Compatibility
	f.complete = len(c.Incomplete()) == 0
	f.hermetic = f.complete && !c.network
	if len(f.request.vcs) > 0 {
		f.meta.VCS = f.request.vcs
	}
	if opt.CaptureUsage {
		f.meta.System = b.System
	}
	if !opt.Max {
		f.request.whole = f.request.whole && len(c.secrets)+len(c.ssh) == 0
		return f, nil
	}
	f.request.params.Secrets, f.request.params.SSH = optionals(c.secrets), optionals(c.ssh)
	if f.config, err = newBuildConfig(b.Definition); err != nil {
		return nil, err
	}
	if f.meta.Source, err = newSources(b.Definition, f.config); err != nil {
		return nil, err
	}
	f.meta.Layers = b.layers(f.config)
	if opt.CaptureUsage {
		f.config.addUsage(b.Usage)
	}
	return f, nil
}

// layers returns the layers by step and output. Those of the last steps are told if all are too many.
func (b *Build) layers(config *buildConfig) map[string][][]ocispec.Descriptor {
	if config == nil || b.Layers == nil {
		return nil
	}
	out := map[string][][]ocispec.Descriptor{}
	told := 0
	for i, vertex := range slices.Backward(config.vertices) {
		for output, layers := range b.Layers(vertex) {
			if len(layers) == 0 {
				continue
			}
			if told += len(layers); told > b.MaxLayers {
				return out
			}
			out[fmt.Sprintf("%s:%d", config.Steps[i].ID, output)] = [][]ocispec.Descriptor{layers}
		}
	}
	return out
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// Predicate returns the JSON.
func (b *Build) Predicate(opt Options) ([]byte, error) {
	f, err := b.facts(opt)
	if err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	var v any
	switch opt.Version {
	case V02:
		v = b.v02(opt, f)
	default:
		v = b.v1(opt, f)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	// What is meant to hold no url may hold one.
	return []byte(giturl.Redact(string(data))), nil
}

// env returns the environment with what the builder says of itself.
func (b *Build) env(platformKey string) map[string]any {
	env := map[string]any{platformKey: platforms.Format(b.Platform)}
	for k, v := range b.Env {
		env[k] = v
	}
	if b.Dockerfile != "" && b.Capture.Request.uses(builtinDockerfile) {
		env["dockerfileVersion"] = b.Dockerfile
	}
	return env
}

type builder struct {
	ID string `json:"id"`
}

type predicateV1 struct {
	Definition definitionV1 `json:"buildDefinition"`
	Run        runV1        `json:"runDetails"`
}

type definitionV1 struct {
	BuildType    string         `json:"buildType"`
	Dependencies []material     `json:"resolvedDependencies,omitempty"`
	External     externalV1     `json:"externalParameters"`
	Internal     map[string]any `json:"internalParameters"`
}

type externalV1 struct {
	ConfigSource configSource `json:"configSource"`
	Request      parameters   `json:"request"`
}

type runV1 struct {
	Builder  builder    `json:"builder"`
	Metadata metadataV1 `json:"metadata"`
}

type metadataV1 struct {
	InvocationID string         `json:"invocationId,omitempty"`
	Started      *time.Time     `json:"startedOn,omitempty"`
	Finished     *time.Time     `json:"finishedOn,omitempty"`
	BuildKit     metadata       `json:"buildkit_metadata"`
	Hermetic     bool           `json:"buildkit_hermetic,omitempty"`
	Completeness completenessV1 `json:"buildkit_completeness"`
	Reproducible bool           `json:"buildkit_reproducible,omitempty"`
}

type completenessV1 struct {
	Request      bool `json:"request"`
	Dependencies bool `json:"resolvedDependencies"`
}

func (b *Build) v1(opt Options, f *facts) predicateV1 {
	internal := b.env("builderPlatform")
	if f.config != nil {
		internal["buildConfig"] = f.config
	}
	return predicateV1{
		Definition: definitionV1{
			BuildType:    buildTypeV1,
			Dependencies: f.materials,
			External:     externalV1{f.request.source, f.request.params},
			Internal:     internal,
		},
		Run: runV1{
			Builder: builder{opt.BuilderID},
			Metadata: metadataV1{
				InvocationID: b.ID, Started: f.started, Finished: f.finished, BuildKit: f.meta, Hermetic: f.hermetic,
				Completeness: completenessV1{f.request.whole, f.complete}, Reproducible: opt.Reproducible,
			},
		},
	}
}

type predicateV02 struct {
	Builder     builder       `json:"builder"`
	BuildType   string        `json:"buildType"`
	Materials   []material    `json:"materials,omitempty"`
	Invocation  invocationV02 `json:"invocation"`
	BuildConfig *buildConfig  `json:"buildConfig,omitempty"`
	Metadata    metadataV02   `json:"metadata"`
}

type invocationV02 struct {
	ConfigSource configSource   `json:"configSource"`
	Parameters   parameters     `json:"parameters"`
	Environment  map[string]any `json:"environment"`
}

type metadataV02 struct {
	InvocationID string          `json:"buildInvocationID,omitempty"`
	Started      *time.Time      `json:"buildStartedOn,omitempty"`
	Finished     *time.Time      `json:"buildFinishedOn,omitempty"`
	Completeness completenessV02 `json:"completeness"`
	Reproducible bool            `json:"reproducible"`
	BuildKit     metadata        `json:"https://mobyproject.org/buildkit@v1#metadata"`
	Hermetic     bool            `json:"https://mobyproject.org/buildkit@v1#hermetic,omitempty"`
}

type completenessV02 struct {
	Parameters  bool `json:"parameters"`
	Environment bool `json:"environment"`
	Materials   bool `json:"materials"`
}

func (b *Build) v02(opt Options, f *facts) predicateV02 {
	src := f.request.source
	src.Path, src.EntryPoint = "", src.Path
	return predicateV02{
		Builder:     builder{opt.BuilderID},
		BuildType:   buildTypeV02,
		Materials:   f.materials,
		Invocation:  invocationV02{src, f.request.params, b.env("platform")},
		BuildConfig: f.config,
		Metadata: metadataV02{
			InvocationID: b.ID, Started: f.started, Finished: f.finished,
			Completeness: completenessV02{Parameters: f.request.whole, Environment: true, Materials: f.complete},
			Reproducible: opt.Reproducible, BuildKit: f.meta, Hermetic: f.hermetic,
		},
	}
}

// Describe returns incomplete materials as the text of an error.
func Describe(all []Incomplete) string {
	var parts []string
	for _, i := range all {
		part := i.Reason
		if i.Name != "" {
			part += " " + i.Name
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
