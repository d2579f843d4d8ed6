package client

// DefaultAddress is where a daemon listens if nothing else was said.
const DefaultAddress = "npipe:////./pipe/buildkitd"
