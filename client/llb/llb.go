// Package llb builds definitions of LLB, the graph of operations that a daemon solves.
//
// A State is an immutable value: a file tree that some operation yields, together with settings
// for the processes that will run in it (environment, directory, user and so on). Each method
// returns a new State and leaves its receiver as it was:
//
//	base := llb.Image("docker.io/library/alpine:3").AddEnv("A", "1")
//	built := base.Run(llb.Shlex("make"), llb.AddMount("/src", llb.Local("src"))).Root()
//	out := llb.Scratch().File(llb.Copy(built, "/out", "/"))
//	def, err := out.Marshal(ctx)
//
// Nothing is executed and nothing is read: marshalling only writes the graph down. Equal graphs
// give equal bytes, and an operation that is reached in several ways is written once. Mistakes
// (a malformed image name, a bad shell word) are kept in the State and returned by Marshal.
// Chains may be long: cost is linear in the number of operations and the stack does not grow.
//
// What is not known while a graph is put together, such as the configuration of an image, is
// supplied by a function that Async defers until Marshal.
//
// Frontends and clients call this package; the daemon reads what it writes.
package llb
