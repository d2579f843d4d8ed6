//go:build linux

package http

import (
	"context"
	"fmt"
	"os"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
	"github.com/openbuildkit/buildkit/worker/source/signature"
)

// Signature is a signature of a file, and whose it may be.
type Signature struct {
	keys  *signature.Keys
	armor string
	// id tells signatures and keys apart.
	id string
}

// parseSignature reads the attributes of that name; nil if both are empty.
func parseSignature(keys, armor string) (*Signature, error) {
	if keys == "" && armor == "" {
		return nil, nil
	}
	if keys == "" || armor == "" {
		return nil, fmt.Errorf("%s and %s go together", pb.AttrHTTPSigPubKey, pb.AttrHTTPSigSignature)
	}
	parsed, err := signature.ParseKeys(keys)
	if err != nil {
		return nil, fmt.Errorf("invalid %s: %w", pb.AttrHTTPSigPubKey, err)
	}
	return &Signature{parsed, armor, hash(keys, armor)}, nil
}

// key is added to the key of a tree: what was not verified is another one.
func (s *Signature) key() string {
	if s == nil {
		return ""
	}
	return " signed " + s.id
}

// verify checks the file in a tree.
func (i *instance) verify(ctx context.Context, ref *cache.Ref) error {
	return tree.OpenFile(ctx, ref, func(f *os.File) error {
		return i.id.Signature.keys.VerifyDetached(i.id.String(), f, i.id.Signature.armor)
	})
}
