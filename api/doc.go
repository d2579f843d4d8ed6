// Package api is the root of the wire contract: every folder below it holds one .proto file with
// its generated code, or the Go vocabulary that belongs to the contract.
//
// The names of proto packages, messages, fields and services are those of BuildKit, so that its
// clients can drive this daemon and this client its daemons. The Go packages are our own. A proto
// full name can be registered only once in a program, so no program can link this tree and the Go
// packages of moby/buildkit together.
//
// The package itself is empty; its tests hold the contract: they compare every message with bytes
// put together from field numbers.
package api
