package otlp_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cmd/internal/otlp"
)

func TestTheEnvironmentNamesTheCollector(t *testing.T) {
	for name, tc := range map[string]struct {
		env map[string]string
		// there is whether there is a client.
		there bool
		err   string
	}{
		"nothing":                    {},
		"an endpoint":                {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4317"}, there: true},
		"an endpoint of traces":      {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "unix:///run/s"}, there: true},
		"otlp where it usually is":   {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, there: true},
		"none":                       {env: map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}},
		"disabled":                   {env: map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}},
		"HTTP":                       {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, there: true},
		"the protocol of traces":     {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "x", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, there: true},
		"another exporter":           {env: map[string]string{"OTEL_TRACES_EXPORTER": "jaeger"}, err: `unsupported OTEL_TRACES_EXPORTER "jaeger": known are otlp and none`},
		"another protocol":           {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, err: `unsupported OTEL_EXPORTER_OTLP_PROTOCOL "http/json": known are grpc and http/protobuf`},
		"an endpoint that is no url": {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a b"}, err: "invalid endpoint of traces"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := otlp.Client(func(k string) string { return tc.env[k] }, false)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.there, client != nil)
		})
	}
}
