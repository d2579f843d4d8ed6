// Package layers holds the tests of the project's layout: which folder may import which, what may
// be in the module graphs, and that every package says what it is.
//
// The tree is a ladder. A folder imports only what stands above it:
//
//	0  api
//	1  session  snapshot
//	2  cache  client
//	3  worker  exporter  frontend
//	4  solver
//	5  cmd  examples  hack
//
// The table in ladder.go is the law; docs/architecture.md explains it.
package layers
