package op

import (
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/solver/schedule"
)

// traceSocket is where a process finds the socket that it can send traces to.
const traceSocket = "/dev/otel-grpc.sock"

// tracer is a build that has a trace: its value in the scheduler says so.
type tracer interface {
	// TraceParent returns the W3C traceparent of what belongs to a step.
	TraceParent(vertex digest.Digest) string
}

// traceEnv returns the variables by which programs that know OpenTelemetry find the socket and
// the trace they are part of. What the user set stays.
func traceEnv(env *schedule.Env, set []string) []string {
	all := []string{
		"OTEL_TRACES_EXPORTER=otlp",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix://" + traceSocket,
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
	}
	for _, v := range env.Values() {
		if t, ok := v.(tracer); ok {
			all = append(all, "TRACEPARENT="+t.TraceParent(env.Vertex.Digest))
			break
		}
	}
	return slices.DeleteFunc(all, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return hasVariable(set, name)
	})
}

func hasVariable(env []string, name string) bool {
	return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
}
