//go:build linux

package git

import (
	"context"
	"fmt"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/worker/source"
)

// ResolveGit tells what a ref stands for. With objects it fetches the commit, and returns it and
// the tag as git stores them.
func (s *Source) ResolveGit(ctx context.Context, id source.Identifier, objects bool, env source.Env) (_ *gatewaypb.ResolveSourceGitResponse, err error) {
	r, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no repository", id)
	}
	i := &instance{src: s, id: r, env: env}
	if err := i.resolve(ctx); err != nil {
		return nil, err
	}
	found := i.found
	resp := &gatewaypb.ResolveSourceGitResponse{Checksum: found.object(), Ref: found.ref}
	if resp.Ref == "" {
		resp.Ref = found.commit
	}
	if found.tag != "" {
		resp.CommitChecksum = found.commit
	}
	if !objects {
		return resp, nil
	}
	repo, err := i.open(ctx)
	if err != nil {
		return nil, err
	}
	defer repo.closeWith(ctx, &err)
	if err := repo.fetch(ctx, found, wants{tag: true, byCommit: r.FetchByCommit}); err != nil {
		return nil, err
	}
	c, err := repo.objects(ctx, found)
	resp.CommitObject, resp.TagObject = c.Object, c.Tag
	return resp, err
}
