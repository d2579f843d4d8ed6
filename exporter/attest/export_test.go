//go:build linux

package attest

import "os"

// ReadStatement reads a file of a bundle.
func ReadStatement(root *os.Root, name string) (Predicate, error) { return statement(root, name, "") }

// LoadBounded is Load with another limit for all together.
var LoadBounded = loadAll
