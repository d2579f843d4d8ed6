//go:build linux

// Package local is the source of local://: a directory of the client, such as a build context.
//
// A tree that was received is kept, still mutable, for the next build of the same client and
// name: then only what changed is sent. It is found again by the name, a hint of the client and
// the key that the client's sessions share; a client without such a key shares with nobody. What
// the transfer needs to know of the last one is stored beside the tree and is removed before the
// tree is written to, so that a transfer that breaks off leaves a tree that is received anew.
//
// The digests of files are made while they pass and given to the checksums of package cache, so
// that no file is read again to find out whether a step can be taken from the cache. The package
// moves no bytes itself: that is session/filesync.
package local

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/checksum"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/worker/source"
)

// Scheme is the scheme of directories of the client.
const Scheme = "local"

// Config is what the source works with.
type Config struct {
	Cache    *cache.Manager
	Sessions *session.Manager
	// Checksums is told the digests of what was received; nil if nobody wants them.
	Checksums *checksum.Cache
}

// Source receives directories. It may be used concurrently.
type Source struct {
	cfg  Config
	sums *sumCache
}

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(cfg Config) *Source { return &Source{cfg: cfg, sums: newSumCache()} }

// Schemes returns local.
func (s *Source) Schemes() []string { return []string{Scheme} }

// Identifier is a parsed local:// op.
type Identifier struct {
	Name string
	// Session is the session that has the directory; empty for any of the build.
	Session         string
	IncludePatterns []string
	ExcludePatterns []string
	FollowPaths     []string
	// SharedKeyHint separates trees of one name.
	SharedKeyHint string
	Differ        filesync.Differ
	// MetadataOnly receives descriptions of files, and the content of MetadataExcept only.
	MetadataOnly   bool
	MetadataExcept []string
}

// Scheme returns local.
func (id *Identifier) Scheme() string { return Scheme }

// String returns the identifier.
func (id *Identifier) String() string { return pb.SchemeLocal + id.Name }

// Material tells of the folder.
func (id *Identifier) Material(string) source.Material {
	return source.Material{Kind: source.MaterialLocal, Name: id.Name}
}

// Parse reads the name and the attributes local.*; others are ignored.
func (s *Source) Parse(_, ref string, attrs map[string]string, _ ocispec.Platform) (source.Identifier, error) {
	id := &Identifier{
		Name:          ref,
		Session:       attrs[pb.AttrLocalSession],
		SharedKeyHint: attrs[pb.AttrLocalSharedKeyHint],
	}
	for key, list := range map[string]*[]string{
		pb.AttrLocalIncludePatterns:         &id.IncludePatterns,
		pb.AttrLocalExcludePatterns:         &id.ExcludePatterns,
		pb.AttrLocalFollowPaths:             &id.FollowPaths,
		pb.AttrLocalMetadataTransferExclude: &id.MetadataExcept,
	} {
		if v := attrs[key]; v != "" {
			if err := json.Unmarshal([]byte(v), list); err != nil {
				return nil, fmt.Errorf("invalid %s: %w", key, err)
			}
		}
	}
	switch v := attrs[pb.AttrLocalDiffer]; v {
	case "", "metadata":
		id.Differ = filesync.DiffMetadata
	case "none":
		id.Differ = filesync.DiffNone
	default:
		return nil, fmt.Errorf("invalid %s %q", pb.AttrLocalDiffer, v)
	}
	if v := attrs[pb.AttrLocalMetadataTransfer]; v != "" {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return nil, fmt.Errorf("invalid %s %q", pb.AttrLocalMetadataTransfer, v)
		}
		id.MetadataOnly = b
	}
	return id, nil
}

// Instance prepares a directory for one build.
func (s *Source) Instance(id source.Identifier, env source.Env) (source.Instance, error) {
	dir, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no local directory", id)
	}
	return &instance{src: s, id: dir, env: env}, nil
}

// key identifies what id stands for within a session.
func (id *Identifier) key(sessionID string) (string, error) {
	data, err := json.Marshal([]any{
		sessionID, id.IncludePatterns, id.ExcludePatterns, id.FollowPaths, id.MetadataOnly, id.MetadataExcept,
	})
	if err != nil {
		return "", err
	}
	return "session:" + id.Name + ":" + digest.FromBytes(data).String(), nil
}
