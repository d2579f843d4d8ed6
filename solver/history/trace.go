package history

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/redact"
	"github.com/openbuildkit/buildkit/solver/feed"
)

const (
	// traceType is the media type of a trace: spans as indented JSON objects, one after the other.
	traceType = "application/vnd.buildkit.otlp.json.v0"
	// defaultTraceGrace is how long the spans of programs in steps may take to arrive.
	defaultTraceGrace = 3 * time.Second
	// maxSpans bounds a trace, for the steps of the build and for what came from programs each.
	maxSpans = 10_000
)

// SpanID is that of a step in the trace of the build ref. Builds of one client may share a trace.
func SpanID(ref string, vertex digest.Digest) trace.SpanID { return spanIDOf(ref, vertex.String()) }

func spanIDOf(path ...string) (id trace.SpanID) {
	h := sha256.New()
	for _, p := range path {
		_, _ = fmt.Fprintf(h, "%d\x00%s", len(p), p)
	}
	copy(id[:], h.Sum(nil))
	return id
}

// spans is the trace of a build, guarded by the store.
type spans struct {
	id trace.TraceID
	// parent is the span of the client that the build is part of, if the client has told one.
	parent trace.SpanContext
	// own are those of the build, foreign those of programs.
	own, foreign []tracetest.SpanStub
	timer        *time.Timer
	// taken is set by who stores the trace, done is closed then.
	taken bool
	done  chan struct{}
}

// watchTrace has spans of a trace taken for a build, forgetTrace no more. The caller holds mu.
func (s *Store) watchTrace(t *spans) { s.traces[t.id] = append(s.traces[t.id], t) }

func (s *Store) forgetTrace(t *spans) {
	left := slices.DeleteFunc(s.traces[t.id], func(o *spans) bool { return o == t })
	if s.traces[t.id] = left; len(left) == 0 {
		delete(s.traces, t.id)
	}
}

// AddSpans takes spans of programs that run in builds, and of clients, without the credentials that may be in
// their texts: clients tell their command line. Those of other traces are ignored.
func (s *Store) AddSpans(all []*tracepb.ResourceSpans) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range all {
		res := resource.NewSchemaless(attributes(redact.Message(r.GetResource()).GetAttributes())...)
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				if len(span.GetTraceId()) != len(trace.TraceID{}) {
					continue
				}
				for _, t := range s.traces[trace.TraceID(span.GetTraceId())] {
					if len(t.foreign) < maxSpans {
						t.foreign = append(t.foreign, foreignSpan(redact.Message(span), res, redact.Message(scope.GetScope())))
					}
				}
			}
		}
	}
}

// ownSpans returns the spans of a build, of its steps, and of what steps did that has a name: the layers that
// they pulled or pushed.
func (t *spans) ownSpans(rec *Record, told *feed.Feed) []tracetest.SpanStub {
	ref := rec.GetRef()
	root := tracetest.SpanStub{
		Name:        "build",
		SpanContext: spanContext(t.id, spanIDOf(ref)),
		Parent:      t.parent,
		SpanKind:    trace.SpanKindServer,
		StartTime:   rec.GetCreatedAt().AsTime(),
		EndTime:     rec.GetCompletedAt().AsTime(),
		Attributes: []attribute.KeyValue{
			attribute.String("ref", ref), attribute.String("frontend", rec.GetFrontend()),
		},
		Resource:             resource.NewSchemaless(attribute.String("service.name", "buildkitd")),
		InstrumentationScope: instrumentation.Scope{Name: "github.com/openbuildkit/buildkit/solver"},
	}
	if rec.GetError() != nil {
		root.Status = sdktrace.Status{Code: otelcodes.Error, Description: rec.GetError().GetMessage()}
	}
	out := []tracetest.SpanStub{root}
	child := func(parent int, name string, path []string, start, end *time.Time, attrs ...attribute.KeyValue) int {
		if start == nil || end == nil || len(out) > maxSpans {
			return -1
		}
		out[parent].ChildSpanCount++
		out = append(out, tracetest.SpanStub{
			Name: name, SpanContext: spanContext(t.id, spanIDOf(path...)), Parent: out[parent].SpanContext,
			SpanKind: trace.SpanKindInternal, StartTime: *start, EndTime: *end, Attributes: attrs,
			Resource: root.Resource, InstrumentationScope: root.InstrumentationScope,
		})
		return len(out) - 1
	}
	steps := map[digest.Digest]int{}
	for _, v := range told.Vertices() {
		n := child(0, v.Name, []string{ref, v.Digest.String()}, v.Started, v.Completed,
			attribute.String("vertex", v.Digest.String()), attribute.Bool("cached", v.Cached))
		if n < 0 {
			continue
		}
		steps[v.Digest] = n
		if v.Error != "" {
			out[n].Status = sdktrace.Status{Code: otelcodes.Error, Description: v.Error}
		}
	}
	for _, st := range told.Statuses() {
		if step, ok := steps[st.Vertex]; ok {
			child(step, cmp.Or(st.Name, st.ID), []string{ref, st.Vertex.String(), st.ID}, st.Started, st.Completed,
				attribute.Int64("current", st.Current))
		}
	}
	return out
}

func spanContext(id trace.TraceID, span trace.SpanID) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled})
}

func foreignSpan(span *tracepb.Span, res *resource.Resource, scope *commonpb.InstrumentationScope) tracetest.SpanStub {
	id := trace.TraceID(span.GetTraceId())
	out := tracetest.SpanStub{
		Name:                 span.GetName(),
		SpanContext:          spanContext(id, spanID(span.GetSpanId())),
		SpanKind:             trace.ValidateSpanKind(trace.SpanKind(span.GetKind())),
		StartTime:            time.Unix(0, int64(span.GetStartTimeUnixNano())).UTC(),
		EndTime:              time.Unix(0, int64(span.GetEndTimeUnixNano())).UTC(),
		Attributes:           attributes(span.GetAttributes()),
		DroppedAttributes:    int(span.GetDroppedAttributesCount()),
		DroppedEvents:        int(span.GetDroppedEventsCount()),
		DroppedLinks:         int(span.GetDroppedLinksCount()),
		Resource:             res,
		InstrumentationScope: instrumentation.Scope{Name: scope.GetName(), Version: scope.GetVersion()},
	}
	if parent := spanID(span.GetParentSpanId()); parent.IsValid() {
		out.Parent = spanContext(id, parent)
	}
	for _, e := range span.GetEvents() {
		out.Events = append(out.Events, sdktrace.Event{
			Name: e.GetName(), Time: time.Unix(0, int64(e.GetTimeUnixNano())).UTC(), Attributes: attributes(e.GetAttributes()),
		})
	}
	switch span.GetStatus().GetCode() {
	case tracepb.Status_STATUS_CODE_ERROR:
		out.Status = sdktrace.Status{Code: otelcodes.Error, Description: span.GetStatus().GetMessage()}
	case tracepb.Status_STATUS_CODE_OK:
		out.Status = sdktrace.Status{Code: otelcodes.Ok}
	}
	return out
}

// spanID reads the id of a span, which is not valid if it is not one.
func spanID(b []byte) (id trace.SpanID) {
	if len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

// attributes returns those of a kind that a span can have; others are written out as text.
func attributes(all []*commonpb.KeyValue) []attribute.KeyValue {
	var out []attribute.KeyValue
	for _, kv := range all {
		key := attribute.Key(kv.GetKey())
		switch v := kv.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			out = append(out, key.String(v.StringValue))
		case *commonpb.AnyValue_BoolValue:
			out = append(out, key.Bool(v.BoolValue))
		case *commonpb.AnyValue_IntValue:
			out = append(out, key.Int64(v.IntValue))
		case *commonpb.AnyValue_DoubleValue:
			out = append(out, key.Float64(v.DoubleValue))
		case *commonpb.AnyValue_ArrayValue:
			out = append(out, list(key, v.ArrayValue))
		default:
			out = append(out, key.String(kv.GetValue().String()))
		}
	}
	return out
}

// list returns a list of texts; one of other values is written out as text.
func list(key attribute.Key, all *commonpb.ArrayValue) attribute.KeyValue {
	var out []string
	for _, v := range all.GetValues() {
		text, ok := v.GetValue().(*commonpb.AnyValue_StringValue)
		if !ok {
			return key.String(all.String())
		}
		out = append(out, text.StringValue)
	}
	return key.StringSlice(out)
}

// encodeSpans returns spans as they are stored.
func encodeSpans(all ...[]tracetest.SpanStub) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "\t")
	for _, spans := range all {
		for i := range spans {
			if err := enc.Encode(&spans[i]); err != nil {
				return nil, err
			}
		}
	}
	return b.Bytes(), nil
}

// finishLater stores the trace of a build that has ended, after a while. The caller holds mu.
func (s *Store) finishLater(ref string, t *spans) {
	t.done = make(chan struct{})
	t.timer = time.AfterFunc(s.cfg.TraceGrace, func() { s.finish(ref, t) })
	s.unfinished[ref] = t
}

// giveUp is called when the record goes to which a trace was to be added. The caller holds mu.
func (s *Store) giveUp(ref string) {
	t := s.unfinished[ref]
	if t == nil || t.taken {
		return
	}
	t.timer.Stop()
	t.taken = true
	delete(s.unfinished, ref)
	s.forgetTrace(t)
	close(t.done)
}

// finish stores a trace, if nobody else has.
func (s *Store) finish(ref string, t *spans) {
	s.mu.Lock()
	taken := t.taken
	t.taken = true
	s.forgetTrace(t)
	s.mu.Unlock()
	if taken {
		return
	}
	t.timer.Stop()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.unfinished[ref] == t {
			delete(s.unfinished, ref)
		}
		close(t.done)
	}()
	if s.cfg.Spans != nil {
		s.cfg.Spans(t.own)
	}
	data, err := encodeSpans(t.own, t.foreign)
	var kept blob
	if err == nil {
		kept, err = s.table.keep(data)
	}
	if err == nil {
		err = s.change(ref, func(rec *Record) {
			rec.Trace = &controlpb.Descriptor{MediaType: traceType, Digest: kept.digest.String(), Size: int64(len(data))}
		}, kept)
	}
	var gone *NotFoundError
	if err != nil && !errors.As(err, &gone) {
		log.L.WithError(err).WithField("ref", ref).Error("the trace of a build is not recorded")
	}
}

// Finalize returns when nothing is added to a record any more: it does not wait for spans that may
// still come.
func (s *Store) Finalize(ctx context.Context, ref string) error {
	if err := s.await(ctx, ref); err != nil {
		return err
	}
	s.mu.Lock()
	t := s.unfinished[ref]
	var err error
	if t == nil && s.get(ref) == nil {
		err = s.noRecord(ref)
	}
	s.mu.Unlock()
	if t == nil {
		return err
	}
	s.finish(ref, t)
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
