// Package filesync moves file trees between a daemon and its clients, in both directions, over
// the fsutil protocol, and single streams such as tarballs from the daemon to a client.
//
// The daemon calls Receive for a build context, Send for an output directory and NewFileWriter
// for an output file. A client allows a Provider, which serves directories by name, and a Target,
// which takes outputs by the index of their exporter. The package neither knows what a tree is
// for nor where a snapshot comes from.
//
// # Protocol
//
// The sender describes every entry in walk order and then says that it was the last; the index of
// an entry is its id. The receiver asks for the content of the regular files that it wants, while
// descriptions are still coming. Both sides write to one stream with limited windows, so two
// rules keep any pair of peers from waiting for each other: a sender never stops to read requests,
// whatever its writes wait for, and a receiver never stops to read data in order to write. Every
// wait ends with the context of the stream.
//
// With peers of our kind a message holds many packets, by a service beside the common one; see
// link.go.
//
// Memory grows with the number of entries by a few dozen bytes for each; the content in flight is
// bounded by a budget. What a peer sends is not trusted: a path that is unclean, out of order,
// below something that is no directory, or data that nobody asked for ends the transfer with a
// *ProtocolError, and nothing is ever written outside of the destination.
package filesync

import (
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"
)

// Differ says how Receive decides that a file of the destination is up to date.
type Differ int

const (
	// DiffMetadata takes a file as unchanged if its description is and, where the sender is able
	// to tell, its inode and change time.
	DiffMetadata Differ = iota
	// DiffNone asks for every file. One at the top that is the same by its inode and change time
	// is compared as it comes, and written only if it differs.
	DiffNone
)

// Notify is told of a change in the destination. Calls do not overlap. A directory comes before
// what is in it; otherwise the order is not defined. The digest is that of the Hasher: empty
// without one, and for removed paths, whose st is nil. A removed directory is reported once,
// without what was in it. Paths are relative and use slashes.
type Notify func(kind fsutil.ChangeKind, path string, st *types.Stat, dgst digest.Digest) error

// Hasher makes the hash of one entry. The content of a regular file is written to it as it
// passes; other entries are hashed as made. It may be called from several goroutines.
type Hasher func(st *types.Stat) (hash.Hash, error)

// Progress is told the number of bytes that have been moved so far, and last when it was the
// final call. Calls do not overlap.
type Progress func(bytes int64, last bool)

// ReceiveOpt says what Receive asks for and where it goes.
type ReceiveOpt struct {
	// Name is the name under which the client knows the directory.
	Name string
	// IncludePatterns, ExcludePatterns and FollowPaths narrow what the client sends, in the
	// syntax of .dockerignore; followed paths include the targets of symbolic links.
	IncludePatterns []string
	ExcludePatterns []string
	FollowPaths     []string

	// Dest is the directory to bring up to date: afterwards it holds what the client sent and
	// nothing else. After an error its content is undefined but for being below Dest.
	Dest   string
	Differ Differ
	// PrevState is what an earlier Receive wrote to NextState when it succeeded, for the same
	// Dest, which nobody has changed since. Nil asks for every file. The caller stores the state
	// beside the tree and must have removed it from there when Changing returns, so that a
	// transfer that fails leaves none.
	PrevState io.Reader
	// Strangers says that PrevState may tell of the directory of another client. Equal sizes and
	// times that a program has set are then no sign of equal files, so what has a modification
	// time of whole milliseconds is asked for.
	Strangers bool
	// Changing, if not nil, is called once before the first change of Dest, and not at all if
	// nothing is changed: then PrevState is as good as NextState. Its error ends the transfer.
	Changing func() error
	// NextState, if not nil, receives the state for the next transfer. It is of no use if
	// Receive fails.
	NextState io.Writer

	// MetadataOnly asks for descriptions in place of content: Dest gets only the file
	// MetadataPath and the entries that match MetadataOnlyExcept, with their parents.
	MetadataOnly       bool
	MetadataOnlyExcept []string

	// Map, if not nil, may change a description before it is applied, such as its owner. It
	// drops an entry by returning false.
	Map func(path string, st *types.Stat) bool

	Hasher   Hasher
	Notify   Notify
	Progress Progress
}

// MetadataPath is the file that a transfer of metadata leaves in its destination: the
// descriptions of all entries, each a little-endian uint32 length and a protobuf fsutil Stat.
const MetadataPath = ".fsutil-metadata"

// ProtocolError says that a peer broke the rules.
type ProtocolError struct {
	Msg string
}

func (e *ProtocolError) Error() string { return "invalid file transfer: " + e.Msg }

// Code returns InvalidArgument.
func (e *ProtocolError) Code() codes.Code { return codes.InvalidArgument }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{Msg: fmt.Sprintf(format, args...)}
}

// PeerError is what the other side gave as the reason to end a transfer.
type PeerError struct {
	Sender bool // the other side was the sender
	Msg    string
}

func (e *PeerError) Error() string {
	if e.Sender {
		return "error from sender: " + e.Msg
	}
	return "error from receiver: " + e.Msg
}
