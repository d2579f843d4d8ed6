package blob

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
)

// originLabel, with a registry's host appended, is where containerd records the repositories of
// that registry which a blob came from or was sent to, separated by commas.
const originLabel = "containerd.io/distribution.source."

// maxLabel is the most that containerd takes for a label, key and value together, in bytes.
const maxLabel = 4096

// Origins returns the repositories, host included, that the labels of a blob name.
func Origins(labels map[string]string) []string {
	var repositories []string
	for key, value := range labels {
		host, ok := strings.CutPrefix(key, originLabel)
		if !ok || host == "" {
			continue
		}
		for path := range strings.SplitSeq(value, ",") {
			if path != "" {
				repositories = append(repositories, host+"/"+path)
			}
		}
	}
	slices.Sort(repositories)
	return repositories
}

// WithOrigin returns the label that adds a repository to those that labels name. The key is empty
// if there is nothing to change: it is named already, or it is no repository.
func WithOrigin(labels map[string]string, repository string) (key, value string) {
	return addName(originLabel, labels, repository)
}

// addName adds a repository to the list in a label of its host.
func addName(prefix string, labels map[string]string, repository string) (key, value string) {
	host, path, ok := strings.Cut(repository, "/")
	if !ok || host == "" || path == "" {
		return "", ""
	}
	key = prefix + host
	old := labels[key]
	switch {
	case slices.Contains(strings.Split(old, ","), path):
		return "", ""
	case old == "" || len(key)+len(old)+1+len(path) > maxLabel:
		return key, path // the oldest are of least use
	}
	return key, old + "," + path
}

// RecordOrigin labels a blob that is in store with a repository that holds it. One that is not
// there is an errdefs.ErrNotFound.
func RecordOrigin(ctx context.Context, store content.Manager, dgst digest.Digest, repository string) error {
	return record(ctx, store, dgst, repository, WithOrigin)
}

// record sets the label that with returns.
func record(ctx context.Context, store content.Manager, dgst digest.Digest, repository string, with func(map[string]string, string) (key, value string)) error {
	info, err := store.Info(ctx, dgst)
	if err != nil {
		return err
	}
	key, value := with(info.Labels, repository)
	if key == "" {
		return nil
	}
	_, err = store.Update(ctx, content.Info{Digest: dgst, Labels: map[string]string{key: value}}, "labels."+key)
	return err
}
