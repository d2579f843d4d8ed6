// Package controlpb is the control service of the daemon: solving, watching a build, sessions,
// workers, disk usage and the history of builds.
//
// Generated code only. Clients call it through the client package; the daemon serves it in
// cmd/buildkitd.
package controlpb
