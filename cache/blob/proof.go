package blob

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

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
