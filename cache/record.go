package cache

import (
	"crypto/rand"
	"encoding/json"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// record is a record in memory. Its fields are guarded by Manager.mu where nothing else is said.
type record struct {
	// id, parent and parts never change. A record keeps its parent in the store, not in use. One
	// that is made of the layers of others (see kind) has no parent but parts, of which those that
	// stand for the empty tree are nil.
	id     string
	parent *record
	parts  []*record

	state state
	usage usage
	// retain keeps a mutable record when its handle is released. It never changes.
	retain bool
	// values has the index of every value stored beside the record, by key.
	values map[string]string

	// twin links the two records of one tree: a mutable one and the immutable one that was
	// committed from it but is not settled on disk yet.
	twin *record

	handles  int
	mounts   int
	children int
	// gone records cannot be opened any more; they are removed when nobody uses them.
	gone bool

	// lost records, and what stands on them, have been found without their bytes.
	lost bool

	// writes counts how often the tree was opened for writing.
	writes int
	// sharing is where the tree of a retained record is mounted for all who mount it.
	sharing sharedMount
	// size of the layer in bytes, -1 if it has to be computed.
	size int64
	// leased says that there is a lease for the record's blobs, kept which of them are known
	// to be under it.
	leased bool
	kept   map[digest.Digest]bool

	// removed are the names that the layer removes if they have become known in this process.
	removed []string
	// progress is where the work for a tree that is made of others shows.
	progress event.Scope

	// settling is held while the tree of the record is settled or removed.
	settling sync.Mutex
}

// state is what is stored of a record.
type state struct {
	Parent string `json:"parent,omitempty"`
	// Kind says what the tree is made of if not of a layer on a parent. Parts are the ids of the
	// records that it is made of, Height is how many layers it has.
	Kind   kind     `json:"kind,omitempty"`
	Parts  []string `json:"parts,omitempty"`
	Height int      `json:"height,omitempty"`
	// Mutable records are still written to. They are stored only if they are to be kept.
	Mutable bool `json:"mutable,omitempty"`
	// Twin is the id of the mutable record whose tree this is.
	Twin string `json:"twin,omitempty"`
	Tree tree   `json:"tree,omitempty"`

	Type      RecordType `json:"type,omitempty"`
	Text      string     `json:"text,omitempty"`
	CreatedAt time.Time  `json:"created"`

	DiffID digest.Digest `json:"diffID,omitempty"`
	Blobs  []variant     `json:"blobs,omitempty"`

	// Dropped records are known to nobody and kept for those that stand on them.
	Dropped bool `json:"dropped,omitempty"`
	// Boot is set while files of the tree may not have reached the disk: it names the run of
	// the machine that has them in memory.
	Boot string `json:"boot,omitempty"`
	// Writing is set while somebody holds the mutable record.
	Writing bool `json:"writing,omitempty"`
}

// tree says what a record has in the snapshot store.
type tree string

const (
	// none: the record is lazy, or its tree is its twin's.
	none tree = ""
	// active: an active snapshot named by activeKey.
	active tree = "active"
	// settled: a committed snapshot named by the id.
	settled tree = "settled"
)

// variant is one form of a layer as a blob.
type variant struct {
	Descriptor  ocispec.Descriptor `json:"descriptor"`
	Compression blob.Compression   `json:"compression"`
	// Level is set if the blob was made here with that level.
	Level *int `json:"level,omitempty"`
	// Made blobs were made here from the tree or from another form; they can be made again.
	Made bool `json:"made,omitempty"`
	// DiffID is set if the blob unpacks to something else than the layer's archive: an eStargz
	// blob that was made here has a file more in it. The config of an image with the blob has to
	// name this one.
	DiffID digest.Digest `json:"diffID,omitempty"`
	// Epoch is set if later times in the layer were changed to it, in Unix seconds. Such a blob has
	// a DiffID.
	Epoch *int64 `json:"epoch,omitempty"`
}

// ofTree reports whether the layer's own archive can be had from the blob.
func (v variant) ofTree() bool { return v.DiffID == "" }

// usage is how a record was used; stored apart because it changes often.
type usage struct {
	LastUsed time.Time `json:"last"`
	Count    int       `json:"count"`
}

// layerKey is a layer on a parent. What a layer is said to unpack to is found out only when it is
// unpacked, so two blobs that are said to unpack to the same are not the same layer.
type layerKey struct {
	parent string
	diffID digest.Digest
	blob   digest.Digest
}

func keyOf(parent *record, diffID, blob digest.Digest) layerKey {
	key := layerKey{diffID: diffID, blob: blob}
	if parent != nil {
		key.parent = parent.id
	}
	return key
}

type indexKey struct{ key, index string }

// activeKey is the name of a record's snapshot while it is active.
func activeKey(id string) string { return id + ".active" }

// inUse reports whether anybody holds the record.
func (r *record) inUse() bool { return r.handles+r.mounts > 0 }

func (r *record) parentID() string {
	if r.parent == nil {
		return ""
	}
	return r.parent.id
}

func (r *record) description() Description {
	return Description{Type: r.state.Type, Text: r.state.Text, CreatedAt: r.state.CreatedAt}
}

// newID returns an id that no record has: 25 digits and lower case letters, at least one digit
// among them.
func newID() string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	var b [25]byte
	_, _ = rand.Read(b[:]) // never fails
	// 256 is no multiple of 36: some digits come a little more often, which does no harm.
	for i := range b {
		b[i] = digits[int(b[i])%len(digits)]
	}
	b[1] = digits[int(b[1])%10]
	return string(b[:])
}

// put stores the record as it is now. The caller holds Manager.mu.
func (m *Manager) put(r *record) {
	if r.gone || r.state.Mutable && !r.retain {
		return
	}
	m.store.PutRecord(r.id, mustJSON(r.state))
}

func (m *Manager) putUsage(r *record) {
	if r.gone || r.state.Mutable && !r.retain {
		return
	}
	m.store.PutUsage(r.id, mustJSON(r.usage))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // types of this package, which have no field that cannot be encoded
	}
	return b
}
