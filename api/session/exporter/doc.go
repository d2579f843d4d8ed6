// Package exporterpb is the session service by which a client adds exporters of its own to a build.
//
// Generated code only; both halves are in session/exporter.
package exporterpb
