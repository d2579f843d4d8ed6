// Package examples holds things to build; each folder has a Dockerfile and says in it what it
// shows: hello, stages and a cache mount; compile, a compiler in a container; platforms, one image for
// several processors, sent to a registry. `make quickstart` builds hello with a daemon of its own.
//
// Folders with a program show the Go library: debug, a frontend on the client's side that looks into a
// failed step with a process in a container.
package examples
