package policy

import (
	"maps"
	"strings"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// storeAttrs say in which store of a client a blob is.
var storeAttrs = []string{pb.AttrOCISession, pb.AttrOCIStore}

// bundle returns the blob that a repository is read from in the place of its remote, as a source of
// its own; nil if there is none. It is fetched, so it has to be allowed, too.
func bundle(op *pb.SourceOp) *pb.SourceOp {
	locator := op.GetAttrs()[pb.AttrGitBundle]
	if locator == "" || !strings.HasPrefix(op.GetIdentifier(), pb.SchemeGit) {
		return nil
	}
	blob := &pb.SourceOp{Identifier: locator}
	for _, key := range storeAttrs {
		if v, ok := op.Attrs[key]; ok {
			if blob.Attrs == nil {
				blob.Attrs = map[string]string{}
			}
			blob.Attrs[key] = v
		}
	}
	return blob
}

// withBundle returns the repository, to be read from another blob.
func withBundle(op, blob *pb.SourceOp) *pb.SourceOp {
	out := &pb.SourceOp{Identifier: op.Identifier, Attrs: maps.Clone(op.Attrs)}
	out.Attrs[pb.AttrGitBundle] = blob.Identifier
	for _, key := range storeAttrs {
		if v, ok := blob.Attrs[key]; ok {
			out.Attrs[key] = v
		}
	}
	return out
}
