//go:build !linux && !windows

package client

// DefaultAddress is where a daemon listens if nothing else was said.
const DefaultAddress = "unix:///var/run/buildkit/buildkitd.sock"
