package solver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/compat"
	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/frontend/attestation"
	"github.com/openbuildkit/buildkit/solver/provenance"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/usage"
)

// acceptAttestations reads which attestations the request asks for.
func (j *job) acceptAttestations() error {
	requested, err := attestation.Requested(j.req.FrontendOpt)
	if err != nil {
		return err
	}
	if attrs, ok := requested[attestation.TypeProvenance]; ok {
		opt, err := provenance.ParseOptions(attrs)
		if err != nil {
			return err
		}
		j.provenance = &opt
		for _, k := range opt.Unknown {
			j.exportWarnings = append(j.exportWarnings, fmt.Sprintf("Attribute %q of provenance is not known and has no effect", k))
		}
		if opt.CaptureUsage {
			j.machine.Start()
		}
	}
	if attrs, ok := requested[attestation.TypeSBOM]; ok {
		j.sbom, err = acceptSBOM(attrs, j.req.FrontendOpt)
	}
	return err
}

// origin tells how a part of a result was made.
type origin struct {
	job     *job
	ref     *reference // nil for the empty tree
	capture *provenance.Capture
	used    []schedule.Used
}

// origins returns how the parts of a result were made, by platform id. It holds what was used once
// the references are evaluated.
func (j *job) origins(res *gateway.Result) (map[string]*origin, error) {
	refs := map[string]*reference{}
	parts, err := j.parts(res)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		ref := res.Ref
		if res.Refs != nil {
			ref = res.Refs[p.ID]
		}
		if ref == nil {
			refs[p.ID] = nil
			continue
		}
		mine, ok := ref.(*reference)
		if !ok || mine.job != j {
			return nil, errForeignReference
		}
		refs[p.ID] = mine
	}
	out := make(map[string]*origin, len(parts))
	for _, p := range parts {
		out[p.ID] = j.origin(refs, p)
	}
	return out, nil
}

var errForeignReference = errors.New("result holds a reference of another build")

// origin tells of one part among those that refs are.
func (j *job) origin(refs map[string]*reference, part exporter.Part) *origin {
	ref := refs[part.ID]
	from := j.asked
	var edges []schedule.Edge
	if ref != nil {
		from = ref.asked
		edges = append(edges, ref.edge)
	}
	others := map[schedule.Edge]bool{}
	for id, other := range refs {
		if id != part.ID && other != nil && (ref == nil || other.edge != ref.edge) {
			others[other.edge] = true
		}
	}
	var resolved []source.Material
	for _, a := range from.sources(j.madeBy) {
		loaded, looked := a.found()
		for _, e := range loaded {
			if !others[e] {
				edges = append(edges, e)
			}
		}
		resolved = append(resolved, looked...)
	}
	o := &origin{job: j, ref: ref, used: j.sched.Used(edges)}
	o.capture = j.capture(o.used, resolved, part.Platform.Platform)
	o.capture.Request = *from.request(j.madeBy)
	o.capture.Request.Compatibility = int(j.version())
	if root := from.root(); root != from && (root != from.parent || root.frontend != from.frontend) {
		o.capture.Request.Root = root.request(j.madeBy)
	}
	return o
}

// version returns the version of behaviour of the build.
func (j *job) version() compat.Version {
	if j.req.Compatibility == 0 {
		return compat.Current
	}
	return j.req.Compatibility
}

// madeBy returns which request made the definition with a root.
func (j *job) madeBy(root digest.Digest) *asked {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.definitions[root]
}

// noteDefinition remembers which request made a definition.
func (j *job) noteDefinition(def *pb.Definition, a *asked) {
	ops := def.GetDef()
	if len(ops) == 0 {
		return
	}
	root := digest.FromBytes(ops[len(ops)-1])
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.definitions == nil {
		j.definitions = map[digest.Digest]*asked{}
	}
	if j.definitions[root] == nil {
		j.definitions[root] = a
	}
}

// capture fills a Capture. Images that were only looked up count for the platform of the part, or if
// they were used.
func (j *job) capture(used []schedule.Used, resolved []source.Material, platform ocispec.Platform) *provenance.Capture {
	c := &provenance.Capture{}
	images := map[string]bool{}
	// An index has one digest for all its platforms.
	one := func(m source.Material) string {
		if m.Platform == nil {
			return m.Digest
		}
		return m.Digest + " " + platforms.Format(*m.Platform)
	}
	for _, u := range used {
		op, ok := u.Vertex.Op.Op.(*pb.Op_Source)
		if !ok {
			c.Op(u.Vertex.Op)
			continue
		}
		_, id, err := j.solver.cfg.Worker.Sources.Parse(op.Source, u.Vertex.Platform)
		if err != nil {
			continue // it would not have been used
		}
		if m, ok := id.(source.Materialer); ok {
			mat := m.Material(u.Pin)
			images[one(mat)] = true
			c.Source(mat)
		}
	}
	for _, m := range resolved {
		if m.Platform == nil || images[one(m)] || platforms.OnlyStrict(platforms.Normalize(platform)).Match(*m.Platform) {
			c.Source(m)
		}
	}
	return c
}

// How many descriptors of layers are told: who asks for it gets some 15 MB, every build 1.5 MB at most.
const (
	maxAttestedLayers = 100_000
	maxRecordedLayers = 10_000
)

// predicate states how the part was built, by a time. Layers are those of the part in an image and chain the
// records that they are of, lowest first; both are nil if there is no image. Of maxLayers see provenance.Build.
func (o *origin) predicate(opt provenance.Options, finished time.Time, chain []string, layers []ocispec.Descriptor, maxLayers int) ([]byte, error) {
	b := &provenance.Build{
		ID:       o.job.req.Ref,
		Started:  o.job.started,
		Finished: finished,
		Platform: o.job.solver.platform(),
		Env:      o.job.solver.cfg.ProvenanceEnv,
		Capture:  o.capture,

		Dockerfile: o.job.solver.cfg.DockerfileVersion,
	}
	if o.ref != nil {
		b.Definition = o.ref.built
	}
	b.Layers, b.MaxLayers = o.layers(chain, layers), maxLayers
	if opt.CaptureUsage {
		b.Usage, b.System = o.usage(), o.job.machine.Samples()
	}
	return b.Predicate(opt)
}

// usage returns what the steps that ran took of the machine.
func (o *origin) usage() map[digest.Digest]*usage.Samples {
	all := map[digest.Digest]*usage.Samples{}
	for _, u := range o.used {
		if step, ok := u.Note.(*usage.Step); ok {
			all[u.Vertex.Digest] = step.Samples()
		}
	}
	return all
}

// layers returns a function that tells the layers of outputs of vertices: as they are in the image if they and
// those below them are part of it, or else as they are known; none are made for it.
func (o *origin) layers(chain []string, layers []ocispec.Descriptor) func(digest.Digest) [][]ocispec.Descriptor {
	position := map[string]int{}
	if len(layers) == len(chain) {
		for i, id := range chain {
			position[id] = i
		}
	}
	results := make(map[digest.Digest][][]string, len(o.used))
	for _, u := range o.used {
		results[u.Vertex.Digest] = u.Results
	}
	one := func(ids []string) []ocispec.Descriptor {
		for _, id := range ids {
			if n, ok := position[id]; ok {
				return layers[:n+1]
			}
		}
		for _, id := range ids {
			if known := o.job.solver.cfg.Worker.Cache.KnownLayers(id); known != nil {
				return known
			}
		}
		return nil
	}
	return func(vertex digest.Digest) [][]ocispec.Descriptor {
		outputs := make([][]ocispec.Descriptor, len(results[vertex]))
		for i, ids := range results[vertex] {
			outputs[i] = one(ids)
		}
		return outputs
	}
}

// attest adds what was asked for to what a result is exported with.
func (j *job) attest(origins map[string]*origin, out *exporter.Result) {
	if j.provenance == nil {
		return
	}
	opt := *j.provenance
	for id, o := range origins {
		meta := map[string][]byte{exporter.AttestationReason: []byte(exporter.ReasonProvenance)}
		if opt.InlineOnly {
			meta[exporter.AttestationInlineOnly] = []byte("true")
		}
		if out.Attestations == nil {
			out.Attestations = map[string][]exporter.Attestation{}
		}
		chain := tree(out, id).Chain()
		out.Attestations[id] = append(out.Attestations[id], exporter.Attestation{
			Path: opt.Filename, PredicateType: opt.Version.PredicateType(), Metadata: meta,
			Content: func(_ context.Context, layers []ocispec.Descriptor) ([]byte, error) {
				return o.predicate(opt, time.Now(), chain, layers, maxAttestedLayers)
			},
		})
	}
}

// tree returns the tree of a part of a result.
func tree(res *exporter.Result, id string) *cache.Ref {
	if res.Multi() {
		return res.Refs[id]
	}
	return res.Ref
}

// checkMaterials refuses a result whose materials are to be known and are not.
func (j *job) checkMaterials(origins map[string]*origin) error {
	if j.provenance == nil || !j.provenance.Complete {
		return nil
	}
	for _, o := range origins {
		missing := o.capture.Incomplete()
		if len(missing) == 0 {
			continue
		}
		e := &status.MaterialsIncompleteError{Err: errors.New("provenance materials are incomplete: " + provenance.Describe(missing))}
		for _, m := range missing {
			e.Incomplete = append(e.Incomplete, &errdefspb.ProvenanceMaterialIncomplete{Op: m.Op, Name: m.Name, Reason: m.Reason})
		}
		return e
	}
	return nil
}
