package history_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// span is what readers of a trace look at.
type span struct {
	Name                string
	SpanContext, Parent struct{ TraceID, SpanID string }
	StartTime, EndTime  time.Time
	Attributes          []struct {
		Key   string
		Value struct {
			Type  string
			Value any
		}
	}
	Status   struct{ Code, Description string }
	Resource []struct{ Key string }
}

func readSpans(t *testing.T, data []byte) []span {
	t.Helper()
	var out []span
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var s span
		err := dec.Decode(&s)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out = append(out, s)
	}
}

// A trace has the build, its steps, and what programs in steps have sent.
func TestATraceIsAddedToARecord(t *testing.T) {
	s := open(t, history.Config{})
	told := feed.New("")
	b := s.Begin(&history.Record{Ref: "r", Frontend: "f"})
	vertex := digest.FromString("v")
	done := event.NewScope(told, vertex).Start("[1/1] RUN fail", nil)
	id := b.TraceID()
	parent := history.SpanID("r", vertex)
	foreign := &tracepb.Span{
		TraceId: id[:], SpanId: []byte("12345678"), ParentSpanId: parent[:], Name: "compile",
		StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + 1,
		Attributes: []*commonpb.KeyValue{{Key: "n", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 7}}}},
		Status:     &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "bad"},
	}
	send := func(spans ...*tracepb.Span) {
		s.AddSpans([]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}})
	}
	send(foreign, &tracepb.Span{TraceId: make([]byte, 16), Name: "of no build"}, &tracepb.Span{TraceId: []byte("short")})
	_ = done(errors.New("no"))
	told.Close()
	b.End(history.Outcome{Feed: told, Err: errors.New("no")})
	require.Nil(t, list(t, s, nil)[0].GetRecord().GetTrace())
	send(&tracepb.Span{TraceId: id[:], Name: "late"})
	require.NoError(t, s.Finalize(t.Context(), "r"))
	require.NoError(t, s.Finalize(t.Context(), "r"), "twice is as good as once")
	send(&tracepb.Span{TraceId: id[:], Name: "too late"})

	rec := list(t, s, nil)[0].GetRecord()
	require.EqualValues(t, 1, rec.GetGeneration())
	require.Equal(t, "application/vnd.buildkit.otlp.json.v0", rec.GetTrace().GetMediaType())
	spans := readSpans(t, blob(t, s, rec.GetTrace()))
	require.Len(t, spans, 4)
	root, step, program := spans[0], spans[1], spans[2]
	require.Equal(t, "build", root.Name)
	require.Equal(t, id.String(), root.SpanContext.TraceID)
	require.Equal(t, "Error", root.Status.Code)
	require.Equal(t, "[1/1] RUN fail", step.Name)
	require.Equal(t, root.SpanContext.SpanID, step.Parent.SpanID)
	require.Equal(t, "no", step.Status.Description)
	require.Equal(t, "compile", program.Name)
	require.Equal(t, step.SpanContext.SpanID, program.Parent.SpanID)
	require.EqualValues(t, 7, program.Attributes[0].Value.Value)
	require.Equal(t, "bad", program.Status.Description)
	require.Equal(t, "late", spans[3].Name)
}

// Clients tell the command that they were started with.
func TestATraceHasNoCredentials(t *testing.T) {
	s := open(t, history.Config{})
	b := s.Begin(&history.Record{Ref: "r"})
	id := b.TraceID()
	text := func(v string) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}
	}
	const url = "context=https://user:sesame@h/r.git"
	span := &tracepb.Span{
		TraceId: id[:], SpanId: []byte("12345678"), Name: "get " + url,
		Attributes: []*commonpb.KeyValue{
			{Key: "one", Value: text(url)},
			{Key: "all", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{text("--opt"), text(url)}}}}},
		},
		Events: []*tracepb.Span_Event{{Name: url, Attributes: []*commonpb.KeyValue{{Key: "one", Value: text(url)}}}},
		Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: url},
	}
	s.AddSpans([]*tracepb.ResourceSpans{{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "process.command_args", Value: text(url)}}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: url}, Spans: []*tracepb.Span{span}}},
	}})
	told := feed.New("")
	told.Close()
	b.End(history.Outcome{Feed: told})
	require.NoError(t, s.Finalize(t.Context(), "r"))
	stored := string(blob(t, s, list(t, s, nil)[0].GetRecord().GetTrace()))
	require.NotContains(t, stored, "sesame")
	require.Equal(t, 8, strings.Count(stored, "https://xxxxx@h/r.git"))
	require.Equal(t, "get "+url, span.GetName(), "the client's own is as it was")
}

func TestATraceComesByItselfAndWithTheEndOfTheDaemon(t *testing.T) {
	dir := t.TempDir()
	s := open(t, history.Config{Dir: dir, TraceGrace: time.Nanosecond})
	l := listen(t, s, nil)
	build(t, s, &history.Record{Ref: "r"}, "", nil)
	for e := range l.events {
		if e.GetRecord().GetTrace() != nil {
			break
		}
	}
	l.end(t)
	require.NoError(t, s.Close())

	s = open(t, history.Config{Dir: dir})
	build(t, s, &history.Record{Ref: "last"}, "", nil)
	build(t, s, &history.Record{Ref: "gone"}, "", nil)
	require.NoError(t, s.Delete(t.Context(), "gone"))
	require.NoError(t, s.Close())
	s = open(t, history.Config{Dir: dir})
	events := list(t, s, nil)
	require.Equal(t, []string{"r", "last"}, refs(events))
	require.NotNil(t, events[1].GetRecord().GetTrace())
}

// Builds that a client makes in one trace all have what it sends, and spans of their own.
func TestBuildsJoinTheTraceOfTheirClient(t *testing.T) {
	var exported []string
	s := open(t, history.Config{Spans: func(all tracetest.SpanStubs) {
		for _, s := range all {
			exported = append(exported, s.Name)
		}
	}})
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	ids := map[string]bool{}
	builds := map[string]*history.Build{}
	for _, ref := range []string{"a", "b"} {
		builds[ref] = s.Begin(&history.Record{Ref: ref})
		builds[ref].Join(parent)
		builds[ref].Join(trace.SpanContext{})
		require.Equal(t, parent.TraceID(), builds[ref].TraceID())
	}
	id := parent.TraceID()
	s.AddSpans([]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{TraceId: id[:], Name: "client"}}}}}})
	for _, ref := range []string{"a", "b"} {
		told := feed.New("")
		scope := event.NewScope(told, digest.FromString("v"))
		done := scope.Start("exporting to image", nil)
		moment := time.Now()
		told.Emit(event.Batch{Statuses: []event.Status{
			{ID: "pushing layers", Vertex: digest.FromString("v"), Started: &moment},
			{ID: "pushing layers", Vertex: digest.FromString("v"), Started: &moment, Completed: &moment, Current: 7},
			{ID: "unfinished", Vertex: digest.FromString("v"), Started: &moment},
		}})
		require.NoError(t, done(nil))
		told.Close()
		builds[ref].End(history.Outcome{Feed: told})
		require.NoError(t, s.Finalize(t.Context(), ref))
		rec := list(t, s, &controlpb.BuildHistoryRequest{Ref: ref})[0].GetRecord()
		spans := readSpans(t, blob(t, s, rec.GetTrace()))
		require.Len(t, spans, 4)
		require.Equal(t, parent.SpanID().String(), spans[0].Parent.SpanID)
		require.Equal(t, "pushing layers", spans[2].Name)
		require.Equal(t, spans[1].SpanContext.SpanID, spans[2].Parent.SpanID)
		require.EqualValues(t, 7, spans[2].Attributes[0].Value.Value)
		require.Equal(t, "client", spans[3].Name)
		for _, s := range spans[:3] {
			require.False(t, ids[s.SpanContext.SpanID], "spans of two builds differ")
			ids[s.SpanContext.SpanID] = true
		}
	}
	require.Equal(t, []string{"build", "exporting to image", "pushing layers", "build", "exporting to image", "pushing layers"}, exported)
}

// longSpan is a span of some KiB.
func longSpan(trace []byte) []*tracepb.ResourceSpans {
	return []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{
		TraceId: trace, Name: strings.Repeat("x", 4<<10),
	}}}}}}
}
