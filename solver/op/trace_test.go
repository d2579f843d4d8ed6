package op

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/schedule"
)

func TestTraceVariablesOfTheUserStay(t *testing.T) {
	got := traceEnv(&schedule.Env{}, []string{"OTEL_TRACES_EXPORTER=none", "PATH=/bin"})
	require.Equal(t, []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix:///dev/otel-grpc.sock", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc"}, got)
}
