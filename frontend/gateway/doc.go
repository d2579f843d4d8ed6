// Package gateway is the daemon's half of the gateway API: it lets frontends in that do not run
// inside the daemon's process.
//
// A Server serves one build over a frontend.Bridge: it decodes calls, keeps the references that a
// frontend was given under opaque ids, and takes the result that the frontend returns. Builds
// hands the calls that arrive on the daemon's socket to the Server of the build that they name;
// it is how clients drive a build from their side. The lists of capabilities that the daemon
// advertises are here too, and nowhere else.
//
// The package decides nothing about builds: what a call does is the Bridge's. Calls come from
// clients and from images and are taken as hostile: every field is checked before it is used,
// and a Server never reads more of a file than fits into a message. The solver makes Servers and
// asks CheckLLB; the daemon's main registers Builds with its gRPC server.
package gateway
