package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// recorded builds a context and returns the name of the build.
func recorded(tb testing.TB, d *harness.Daemon, context string, more ...string) (string, harness.Result) {
	tb.Helper()
	ref := filepath.Join(tb.TempDir(), "ref")
	args := append(harness.DockerfileArgs(context), "--ref-file="+ref)
	result := d.Buildctl(tb, append(args, more...)...)
	return read(tb, ref), result
}

// numbers checks that the lines of a step in a plain log are the numbers from 1 to n.
func numbers(tb testing.TB, plain string, n int) {
	tb.Helper()
	next := 1
	for line := range strings.Lines(plain) {
		fields := strings.Fields(line)
		if len(fields) != 3 || !strings.HasPrefix(fields[0], "#") {
			continue
		}
		if got, err := strconv.Atoi(fields[2]); err == nil && strings.Contains(fields[1], ".") {
			require.Equal(tb, next, got)
			next++
		}
	}
	require.Equal(tb, n+1, next)
}

// What is printed live is cut; what is kept is not, over restarts too, until it is deleted.
func TestAllOutputOfABuildIsKept(t *testing.T) {
	const lines = 60_000
	d := start(t, harness.DaemonOptions{Env: []string{"BUILDKIT_STEP_LOG_MAX_SIZE=10240"}})
	ref, live := recorded(t, d, dockerfile(t, "FROM busybox", fmt.Sprintf("RUN seq -w 1 %d | sed 's/^0*//'", lines)))
	require.Zero(t, live.Code, live.Stderr)
	require.Contains(t, live.Stderr, "[output clipped, log limit 10KiB reached]")
	require.Less(t, len(live.Stderr), 100<<10)

	check := func() {
		replay := d.MustBuildctl(t, "debug", "logs", "--progress=plain", ref).Stdout
		require.NotContains(t, replay, "clipped")
		numbers(t, replay, lines)
	}
	check()
	d.Restart(t)
	check()
	d.MustBuildctl(t, "debug", "ctl", "--pin", ref)
	require.NotContains(t, d.MustBuildctl(t, "prune-histories").Stdout, ref)
	require.Contains(t, d.MustBuildctl(t, "debug", "histories").Stdout, ref)
	d.MustBuildctl(t, "debug", "ctl", "--unpin", ref)
	require.Equal(t, 1, d.Buildctl(t, "prune-histories", "--format={{.Nope}}").Code)
	require.Contains(t, d.MustBuildctl(t, "debug", "histories").Stdout, ref, "what cannot be printed is not deleted")
	d.MustBuildctl(t, "debug", "ctl", "--delete", ref)
	require.NotContains(t, d.MustBuildctl(t, "debug", "histories").Stdout, ref)
	gone := d.Buildctl(t, "debug", "logs", ref)
	require.Equal(t, 1, gone.Code)
	require.Contains(t, gone.Stderr, "no such job "+ref)
}

// A step that two builds share is in the records of both, whole.
func TestASharedStepIsInTheRecordsOfAllBuilds(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	context := dockerfile(t, "FROM busybox", "RUN seq 1 60000; sleep 1; echo 60001")
	refs := [2]string{filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")}
	clients := [2]*client{}
	for i, ref := range refs {
		clients[i] = launch(t, d, append(harness.DockerfileArgs(context), "--ref-file="+ref)...)
	}
	for i, ref := range refs {
		require.Zero(t, clients[i].wait(t).Code)
		numbers(t, d.MustBuildctl(t, "debug", "logs", "--progress=plain", read(t, ref)).Stdout, 60_001)
	}
}

func TestAFailureIsRecordedWithItsPlace(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	context := dockerfile(t, "FROM busybox", "RUN echo said; exit 7")
	ref, failed := recorded(t, d, context)
	require.Equal(t, 1, failed.Code)

	type descriptor struct{ Digest string }
	var e struct {
		Record struct {
			Ref, Frontend     string
			Error             struct{ Message string }
			ExternalError     descriptor
			NumCompletedSteps int
		}
	}
	text := d.MustBuildctl(t, "debug", "histories", "--format=json").Stdout
	require.NoError(t, json.Unmarshal([]byte(text), &e))
	require.Equal(t, ref, e.Record.Ref)
	require.Equal(t, "dockerfile.v0", e.Record.Frontend)
	require.Equal(t, `process "/bin/sh -c echo said; exit 7" did not complete successfully: exit code: 7`, e.Record.Error.Message)
	require.Contains(t, d.MustBuildctl(t, "debug", "get", e.Record.ExternalError.Digest).Stdout, "Dockerfile")
	logs := d.MustBuildctl(t, "debug", "logs", "--progress=plain", ref).Stdout
	require.Contains(t, logs, "said")
	require.Contains(t, logs, "ERROR: process")
}

// A daemon that is killed keeps what it had recorded, and starts with a history that is damaged.
func TestRecordsOutliveAKilledDaemon(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	first, result := recorded(t, d, dockerfile(t, "FROM busybox"))
	require.Zero(t, result.Code, result.Stderr)
	// The second is recorded after the first.
	second, _ := recorded(t, d, dockerfile(t, "FROM busybox", "RUN sleep 1"))
	d.Kill(t)
	d.Start(t)
	require.Contains(t, d.MustBuildctl(t, "debug", "logs", "--progress=plain", first).Stdout, "load build definition")
	d.Stop(t)
	history := filepath.Join(d.Root, "openbuildkit", "history", "history.db")
	write(t, history, strings.Repeat("noise", 10_000))
	d.Start(t)
	require.NotContains(t, d.MustBuildctl(t, "debug", "histories").Stdout, second)
	third, result := recorded(t, d, dockerfile(t, "FROM busybox"))
	require.Zero(t, result.Code, result.Stderr)
	require.Contains(t, d.MustBuildctl(t, "debug", "histories").Stdout, third)
}

// recordedPredicate returns what the record of a build says of how its result was made.
func recordedPredicate(t *testing.T, d *harness.Daemon, ref string) string {
	t.Helper()
	var event struct {
		Record struct {
			Result struct {
				Attestations []struct {
					Digest      string            `json:"digest"`
					Annotations map[string]string `json:"annotations"`
				}
			}
		} `json:"record"`
	}
	found := false
	for line := range strings.Lines(d.MustBuildctl(t, "debug", "histories", "--format=json").Stdout) {
		if strings.Contains(line, ref) {
			require.NoError(t, json.Unmarshal([]byte(line), &event))
			found = true
		}
	}
	require.True(t, found)
	require.Len(t, event.Record.Result.Attestations, 1)
	att := event.Record.Result.Attestations[0]
	require.Equal(t, "https://slsa.dev/provenance/v1", att.Annotations["in-toto.io/predicate-type"])
	return d.MustBuildctl(t, "debug", "get", att.Digest).Stdout
}

func TestTheRecordOfABuildSaysHowItWasMade(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	ref, result := recorded(t, d, dockerfile(t, "FROM busybox", "RUN true"))
	require.Zero(t, result.Code, result.Stderr)
	predicate := recordedPredicate(t, d, ref)
	require.Contains(t, predicate, `"pkg:docker/busybox@latest?platform=linux%2Famd64"`)
	require.Contains(t, predicate, `"llbDefinition"`)
	require.Contains(t, predicate, `"layers":{"step0:0":[[`, "those of the base are known though there is no image")
	require.Contains(t, predicate, `"usageNanos"`)
	require.Contains(t, predicate, `"sysUsage"`)
	require.Contains(t, predicate, ref)
}

// A build is part of the trace of its client: the record has what the client sent, the steps, and what was
// pulled and pushed.
func TestATraceHasTheClientAndWhatWasPulledAndPushed(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	c := connect(t, d)
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{7}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled})
	ctx := trace.ContextWithRemoteSpanContext(t.Context(), parent)
	ref := bkclient.NewRef()
	_, err := c.Solve(ctx, marshal(t, llb.Image("docker.io/library/busybox").Run(llb.Shell("touch /made")).Root()), bkclient.SolveOpt{
		Ref: ref, Progress: event.Discard,
		Exports: []bkclient.Export{{Type: "image", Attrs: map[string]string{"name": registry.Host + "/out/traced", "push": "true"}}},
	})
	require.NoError(t, err)
	conn, err := grpc.NewClient(d.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	id := parent.TraceID()
	_, err = coltracepb.NewTraceServiceClient(conn).Export(t.Context(), &coltracepb.ExportTraceServiceRequest{
		ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{TraceId: id[:], Name: "of the client"}}}}}},
	})
	require.NoError(t, err)
	_, err = controlpb.NewControlClient(conn).UpdateBuildHistory(t.Context(), &controlpb.UpdateBuildHistoryRequest{Ref: ref, Finalize: true})
	require.NoError(t, err)

	text := d.MustBuildctl(t, "debug", "logs", "--trace", ref).Stdout
	var names []string
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var s struct {
			Name        string
			SpanContext struct{ TraceID string }
		}
		require.NoError(t, dec.Decode(&s))
		require.Equal(t, parent.TraceID().String(), s.SpanContext.TraceID)
		names = append(names, s.Name)
	}
	for _, want := range []string{"build", "of the client", "exporting to image", "pushing layers"} {
		require.Contains(t, names, want)
	}
	require.True(t, slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "sha256:") }), "a layer was pulled: %q", names)
}

// The trace of a build begins with the command of the client and holds what that asked for.
func TestATraceBeginsWithTheCommandOfTheClient(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	refFile := filepath.Join(t.TempDir(), "ref")
	d.Build(t, dockerfile(t, "FROM busybox", "COPY Dockerfile /"), "--ref-file="+refFile, "--opt=build-arg:FROM=https://me:secret@example.com/")
	type span struct {
		Name                string
		SpanContext, Parent struct{ TraceID, SpanID string }
		Attributes          []struct {
			Key   string
			Value struct{ Value any }
		}
	}
	var all []span
	byName := map[string]span{}
	for dec := json.NewDecoder(strings.NewReader(d.MustBuildctl(t, "debug", "logs", "--trace", read(t, refFile)).Stdout)); dec.More(); {
		var s span
		require.NoError(t, dec.Decode(&s))
		all, byName[s.Name] = append(all, s), s
	}
	command := byName["buildctl build"]
	require.NotEmpty(t, command.SpanContext.SpanID)
	require.Equal(t, "0000000000000000", command.Parent.SpanID)
	require.Equal(t, "command", command.Attributes[0].Key)
	argv, ok := command.Attributes[0].Value.Value.([]any)
	require.True(t, ok, "a list: %v", command.Attributes)
	require.Contains(t, argv, "--opt=build-arg:FROM=https://xxxxx@example.com/")
	require.Contains(t, argv, "--frontend=dockerfile.v0")
	for _, s := range all {
		require.Equal(t, command.SpanContext.TraceID, s.SpanContext.TraceID, s.Name)
	}
	for _, call := range []string{"Control/ListWorkers", "Control/Session", "Control/Solve", "Control/Status", "frontend.LLBBridge/Solve"} {
		name := "moby.buildkit.v1." + call
		require.Equal(t, command.SpanContext.SpanID, byName[name].Parent.SpanID, name)
	}
	require.Equal(t, byName["moby.buildkit.v1.Control/Solve"].SpanContext.SpanID, byName["build"].Parent.SpanID)
	// What the client was asked for is part of it too.
	require.True(t, slices.ContainsFunc(all, func(s span) bool {
		return strings.HasSuffix(s.Name, ".FileSync/DiffCopy") && s.Parent.SpanID == command.SpanContext.SpanID
	}), "files were sent: %v", slices.Sorted(maps.Keys(byName)))
}
