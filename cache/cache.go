// Package cache holds file trees with a lifetime: results of build steps, pulled image layers,
// contexts and cache mounts, each as a record in a store and a Ref in the hands of a user.
//
// A tree is immutable (a Ref) or still being written (a MutableRef). An immutable tree is a layer
// on top of a parent tree; a nil *Ref stands for the empty tree everywhere. A tree has up to two
// forms: a snapshot (files on disk, made with package snapshot) and a blob (a tar archive in the
// content store, described by a layer descriptor). A tree is lazy while neither is here: only its
// descriptor is known and a blob.Source of the requester can fetch it. Either form is made from
// the other when it is first asked for, once, however many ask.
//
// The life of a record: New makes a mutable tree on a parent; Commit turns it into an immutable
// one (the MutableRef is used up); AddBlob makes an immutable one from a descriptor, or returns
// the record that exists for the same chain. Get opens a record by its id. Each of these returns
// a handle that keeps the record, its parents, its snapshot and its blobs from being collected
// until Release; when no handle is left the record stays, unused, until Prune or the collector
// (package gc) takes it, or until its id is unknown to the solver and it is dropped. Handles are
// not shared between goroutines without Clone.
//
// A tree can also be made of others (Merge, Diff): it has no layer of its own then but those of its
// parts, which it keeps, and it is lazy until it is mounted.
//
// Every record is either whole or a miss: after a crash, or when bytes have gone, opening or
// reading it fails with an error that is ErrLost, the record is dropped, and its owner builds it
// anew. Records are stored in bbolt, writes grouped.
package cache

import (
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/session"
)

// Errors of this package, to be tested with errors.Is.
var (
	// ErrNotFound: there is no record of that id.
	ErrNotFound = errors.New("no such cache record")
	// ErrLocked: the mutable record is in use by somebody else.
	ErrLocked = errors.New("cache record is in use")
	// ErrLost: the record is there, its bytes are not.
	ErrLost = blob.ErrLost
)

// RecordType says what a record was made for. It decides which prune takes it.
type RecordType string

// The record types, as clients see and filter them.
const (
	Internal    RecordType = "internal"
	Frontend    RecordType = "frontend"
	LocalSource RecordType = "source.local"
	GitCheckout RecordType = "source.git.checkout"
	CacheMount  RecordType = "exec.cachemount"
	Regular     RecordType = "regular"
)

// Access is what a request may use to make a lazy tree real: the sessions of its build, and the
// places its blobs can come from. The zero value can use nothing but what is here.
type Access struct {
	Sessions session.Group
	Blobs    blob.Finder
}

// Description is what is known of a record besides its contents.
type Description struct {
	// Type is Regular if empty.
	Type RecordType
	// Text is shown by du and as the history of a layer: "[stage-1 2/3] RUN make".
	Text string
	// CreatedAt is now if zero.
	CreatedAt time.Time
}

// Usage is a record as disk usage shows it. Parents are ids, several of a tree that is made of others;
// Size is in bytes, of the record's own layer only.
type Usage struct {
	ID          string
	Mutable     bool
	InUse       bool
	Size        int64
	CreatedAt   time.Time
	LastUsedAt  *time.Time
	UsageCount  int
	Parents     []string
	Description string
	Type        RecordType
	Shared      bool
}

// Layer is one layer of an immutable tree as a blob.
type Layer struct {
	// Descriptor has the media type, digest and size of the compressed form, and annotations if
	// the form needs them.
	Descriptor ocispec.Descriptor
	// DiffID is the digest of what this form unpacks to, for the config of an image. It is not
	// the same for all forms of a layer: an eStargz blob has a table of contents in its archive.
	DiffID digest.Digest
	// Description and CreatedAt are those of the record.
	Description string
	CreatedAt   time.Time
	// Retimed says that LayersAt has changed times, Unchanged why it could not.
	Retimed   bool
	Unchanged error
}
