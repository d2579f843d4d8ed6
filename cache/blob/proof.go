package blob

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

// Proofs is what a Source has shown that it has. It is part of the source, and not remembered by
// who asks, so that nobody keeps sources of builds that have ended. The zero value is ready for use;
// methods may be called concurrently.
type Proofs struct {
	mu     sync.Mutex
	proved map[digest.Digest]struct{}
}

// HasProved is that of a Source.
func (p *Proofs) HasProved(dgst digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.proved[dgst]
	return ok
}

// NoteProof is that of a Source.
func (p *Proofs) NoteProof(dgst digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proved == nil {
		p.proved = map[digest.Digest]struct{}{}
	}
	p.proved[dgst] = struct{}{}
}

// proofLabel, with a registry's host appended, names the repositories of that registry which have
// shown that they have the bytes. An origin is less than that: that a blob was found in a repository
// is only what its registry says.
const proofLabel = "buildkit/proved."

// Proved reports whether the labels of a blob say that a repository, host included, has its bytes.
func Proved(labels map[string]string, repository string) bool {
	host, path, _ := strings.Cut(repository, "/")
	return path != "" && slices.Contains(strings.Split(labels[proofLabel+host], ","), path)
}

// WithProof returns the label that adds a repository to those that labels name as having the bytes.
// The key is empty if there is nothing to change: it is named already, or it is no repository.
func WithProof(labels map[string]string, repository string) (key, value string) {
	return addName(proofLabel, labels, repository)
}

// RecordProof labels a blob that is in store with a repository that has its bytes. One that is not
// there is an errdefs.ErrNotFound.
func RecordProof(ctx context.Context, store content.Manager, dgst digest.Digest, repository string) error {
	return record(ctx, store, dgst, repository, WithProof)
}
