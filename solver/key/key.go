// Package key remembers which result belongs to which work.
//
// A key names what a vertex would yield, without yielding it. A root key stands for a vertex
// without inputs (an image of a certain digest) or for a piece of content (a tree with a certain
// checksum). Any other key is a node in a graph of links: each link says that an op, reading the
// input key with a selector as its input number n, leads to the key. A key is found when every
// input of the op links to it, by any of the alternative keys that the input is known under; it
// is then linked from the other alternatives as well. Input keys are never hashed together: n
// inputs with two alternatives each would have to be stored 2^n times.
//
// A key has any number of results, ids of cache records, newest first. Results come and go; keys
// stay while they have results or lead to keys that have.
//
// The key space is private to this implementation and versioned by the store's file. Package
// schedule asks and tells the store; nobody else writes to it.
package key

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/opencontainers/go-digest"
)

// ID is a key.
type ID [16]byte

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Root returns the key of output number output of an op that has no inputs. It needs no store.
func Root(op digest.Digest, output int) ID {
	return hashID("root", string(op), int64(output))
}

// Content returns the key of content with a checksum. It needs no store.
func Content(dgst digest.Digest) ID {
	return hashID("content", string(dgst), 0)
}

func hashID(kind, s string, n int64) ID {
	h := sha256.New()
	h.Write([]byte(kind))
	h.Write([]byte{0})
	h.Write([]byte(s))
	h.Write(appendInt([]byte{0}, n))
	return ID(h.Sum(nil)[:len(ID{})])
}

func newID() ID {
	var id ID
	// crypto/rand.Read never fails.
	_, _ = rand.Read(id[:])
	return id
}

// Alt is one of the keys that an input is known under, with the part of the input's tree that the
// op reads. Content keys have no selector: the content is the part.
type Alt struct {
	Key      ID
	Selector string
}

// Op is what is done to the inputs, and which of the outputs is meant.
type Op struct {
	Digest digest.Digest
	Output int
	// inputs is their number, set by the store: ops of different numbers are different ops.
	inputs int
}

// Result is a stored result of a key.
type Result struct {
	// ID is the id of a cache record; empty stands for the empty tree.
	ID        string
	CreatedAt time.Time
}

// Link is a way by which a key is reached.
type Link struct {
	// Input is the number of the op's input.
	Input int
	Alt   Alt
}

// Parts is what a key consists of: the op, and the links that lead to it. Two keys that should
// have been one differ in a part.
type Parts struct {
	Op    Op
	Links []Link
}
