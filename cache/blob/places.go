package blob

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Places is what a content.Provider may implement, too, to say where blobs are besides: a push to
// a registry then need not send what another repository of that registry has.
type Places interface {
	// Repositories returns the repositories, host included, that are known to hold a blob, those
	// that the requester itself has used first.
	Repositories(ctx context.Context, dgst digest.Digest) []string
	// Pushed is told that a repository has a blob now.
	Pushed(ctx context.Context, dgst digest.Digest, repository string)
}
