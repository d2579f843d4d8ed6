package solver

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"runtime/debug"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/solver/history"
	"github.com/openbuildkit/buildkit/solver/provenance"
)

// begin tells the history of the build.
func (j *job) begin() {
	// crypto/rand.Read never fails.
	_, _ = rand.Read(j.trace[:])
	if j.req.Trace.IsValid() {
		j.trace = j.req.Trace.TraceID()
	}
	if j.req.Internal {
		return
	}
	rec := &history.Record{Ref: j.req.Ref, Frontend: j.req.Frontend, FrontendAttrs: j.req.FrontendOpt}
	for _, e := range j.req.Exporters {
		rec.Exporters = append(rec.Exporters, &controlpb.Exporter{Type: e.Type, Attrs: e.Attrs})
	}
	if j.recorded = j.solver.cfg.History.Begin(rec); j.recorded != nil {
		j.machine.Start()
		j.recorded.Join(j.req.Trace)
		j.recorded.Follow(j.feed)
		j.trace = j.recorded.TraceID()
	}
}

// record tells the history what became of the build, whose feed is closed. What takes time is done after
// the client has its answer.
func (j *job) record(resp *Response, err error) {
	if j.recorded == nil {
		j.machine.Stop()
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	response := map[string]string{}
	for k, v := range j.metadata {
		response[k] = string(v)
	}
	if resp != nil {
		maps.Copy(response, resp.Exporter)
	}
	if j.frontend != "" && j.metadata != nil {
		response[requestedKey] = j.requested()
	}
	outcome := history.Outcome{
		Err:      err,
		Frontend: j.frontend,
		Response: response,
		Result:   j.outputsResult(),
		Feed:     j.feed,
	}
	if made := j.made; err == nil && len(made) > 0 {
		finished := time.Now()
		outcome.Later = func(o *history.Outcome) {
			j.recordProvenance(o, made, finished)
			j.machine.Stop()
		}
	} else {
		j.machine.Stop()
	}
	j.recorded.End(outcome)
}

// recordProvenance adds how the result was made, whether that was asked for or not. A record without it
// is better than none.
func (j *job) recordProvenance(o *history.Outcome, made map[string]*origin, finished time.Time) {
	for id, part := range made {
		d, err := j.keepProvenance(part, finished)
		if err != nil {
			log.L.WithError(err).WithField("ref", j.req.Ref).Warn("the record of a build does not say how the result was made")
			continue
		}
		if len(made) > 1 {
			if o.Results == nil {
				o.Results = map[string]*controlpb.BuildResultInfo{}
			}
			o.Results[id] = &controlpb.BuildResultInfo{Attestations: []*controlpb.Descriptor{d}}
			continue
		}
		if o.Result == nil {
			o.Result = &controlpb.BuildResultInfo{}
		}
		o.Result.Attestations = append(o.Result.Attestations, d)
	}
}

// keepProvenance keeps the predicate of a part of the result with the record. A panic is an error: nobody
// else takes it any more.
func (j *job) keepProvenance(made *origin, finished time.Time) (d *controlpb.Descriptor, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	opt := provenance.Options{Max: true, Version: provenance.V1, CaptureUsage: true}
	data, err := made.predicate(opt, finished, nil, nil, maxRecordedLayers)
	if err != nil {
		return nil, err
	}
	return j.recorded.Attach(blob.MediaTypeStatement, data, map[string]string{blob.AnnotationPredicateType: opt.Version.PredicateType()})
}

// outputsResult describes what the exporters made, by their position; nil if that is nothing that has
// a descriptor.
func (j *job) outputsResult() *controlpb.BuildResultInfo {
	var info *controlpb.BuildResultInfo
	for i, answer := range j.answers {
		d := descriptorOf(answer)
		if d == nil {
			continue
		}
		if info == nil {
			info = &controlpb.BuildResultInfo{ResultDeprecated: d, Results: map[int64]*controlpb.Descriptor{}}
		}
		info.Results[int64(i)] = d
	}
	return info
}

// descriptorOf returns the descriptor in the answer of an exporter, nil if there is none.
func descriptorOf(answer map[string]string) *controlpb.Descriptor {
	data, err := base64.StdEncoding.DecodeString(answer[exporter.KeyDescriptor])
	if err != nil || len(data) == 0 {
		return nil
	}
	var d ocispec.Descriptor
	if json.Unmarshal(data, &d) != nil {
		return nil
	}
	return &controlpb.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations}
}

// requestedKey is where a record tells what the frontend was asked for that its result can be compared
// with.
const requestedKey = "verifier.requestopts"

// requested returns that as JSON. The caller holds mu.
func (j *job) requested() string {
	r := struct {
		Platforms []string
		Labels    map[string]string
		Request   string
	}{
		Platforms: []string{platforms.FormatAll(j.solver.platform())},
		Labels:    map[string]string{},
		Request:   j.frontendOpts["requestid"],
	}
	if p := j.frontendOpts[platformOpt]; p != "" {
		r.Platforms = strings.Split(p, ",")
	}
	for k, v := range j.frontendOpts {
		if label, ok := strings.CutPrefix(k, "label:"); ok {
			r.Labels[label] = v
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return "" // cannot be: there is nothing but strings
	}
	return string(text)
}

// keepImage keeps the manifests of an image that was exported with the record.
func (j *job) keepImage(ctx context.Context, from content.Provider, image ocispec.Descriptor) {
	if err := j.recorded.AttachImage(ctx, from, image); err != nil {
		log.G(ctx).WithError(err).WithField("ref", j.req.Ref).Warn("an image is not described in the record of its build")
	}
}
