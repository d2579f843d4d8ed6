// Package pb is LLB on the wire: the operations of a build graph, their metadata, the capabilities
// and the source attributes that belong to them.
//
// An op is named by the sha256 of its serialized bytes, so its fields and their order are part of
// every cache key. Package client/llb builds definitions, solver/graph checks them.
package pb
