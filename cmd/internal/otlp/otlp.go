// Package otlp chooses where the programs send their traces, from the variables of OpenTelemetry; see
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
package otlp

import (
	"fmt"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
)

const (
	envExporter = "OTEL_TRACES_EXPORTER"
	envEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envProtocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
	// What is only for traces goes before what is for all.
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envDisabled       = "OTEL_SDK_DISABLED"

	exporterOTLP = "otlp"
	exporterNone = "none"
)

// Off reports whether the environment says that there are to be no traces at all.
func Off(getenv func(string) string) bool {
	return strings.EqualFold(getenv(envDisabled), "true") || getenv(envExporter) == exporterNone
}

// Client returns a client of the collector that the environment names, not started, and nil if it names
// none. With retry it sends again what a collector could not take, for up to a minute. Errors are about
// the variables.
func Client(getenv func(string) string, retry bool) (otlptrace.Client, error) {
	endpoint, protocol := getenv(envTracesEndpoint), getenv(envTracesProtocol)
	if endpoint == "" {
		endpoint = getenv(envEndpoint)
	}
	if protocol == "" {
		protocol = getenv(envProtocol)
	}
	switch exporter := getenv(envExporter); {
	case Off(getenv), exporter == "" && endpoint == "":
		return nil, nil
	case exporter != "" && exporter != exporterOTLP:
		return nil, fmt.Errorf("unsupported %s %q: known are %s and %s", envExporter, exporter, exporterOTLP, exporterNone)
	}
	if _, err := url.Parse(endpoint); err != nil {
		return nil, fmt.Errorf("invalid endpoint of traces: %w", err)
	}
	var grpcOpts []otlptracegrpc.Option
	var httpOpts []otlptracehttp.Option
	if !retry {
		grpcOpts = append(grpcOpts, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{}))
		httpOpts = append(httpOpts, otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}))
	}
	switch protocol {
	case "", "grpc":
		return otlptracegrpc.NewClient(grpcOpts...), nil
	case "http/protobuf":
		return otlptracehttp.NewClient(httpOpts...), nil
	}
	return nil, fmt.Errorf("unsupported %s %q: known are grpc and http/protobuf", envProtocol, protocol)
}
