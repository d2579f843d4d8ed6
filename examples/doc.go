// Package examples holds things to build, and programs that build. Folders with a Dockerfile say in it
// what they show: hello, stages and a cache mount; compile, a compiler in a container; platforms, one
// image for several processors, sent to a registry. `make quickstart` builds hello with a daemon of its
// own.
//
// The programs use the Go libraries: llb is a chain of programs that pipe a build to buildctl; frontend
// is a language of builds of its own, which runs on the side of the client or as an image; nested has a
// step of the build make a definition, which is built then.
//
// Folders with a program show the Go library: debug, a frontend on the client's side that looks into a
// failed step with a process in a container.
package examples
