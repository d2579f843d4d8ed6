//go:build linux

package git

import (
	"context"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/source/signature"
)

// Signature says whose signature a commit or tag must have.
type Signature struct {
	keys *signature.Keys
	opt  signature.GitOptions
	// id tells keys and options apart.
	id string
}

// parseSignature reads the attributes git.sig.*; nil without a key.
func parseSignature(attrs map[string]string) (*Signature, error) {
	s := &Signature{}
	flags := ""
	for _, f := range []struct {
		key string
		dst *bool
	}{
		{pb.AttrGitSigRejectExpired, &s.opt.RejectExpired},
		{pb.AttrGitSigRequireSigned, &s.opt.RequireSignedTag},
		{pb.AttrGitSigIgnoreSigned, &s.opt.IgnoreSignedTag},
	} {
		if v := attrs[f.key]; v != "" {
			on, err := strconv.ParseBool(v)
			if err != nil {
				return nil, fmt.Errorf("invalid %s %q", f.key, v)
			}
			*f.dst = on
		}
		flags += strconv.FormatBool(*f.dst) + " "
	}
	text := attrs[pb.AttrGitSigPubKey]
	switch {
	case text == "" && s.opt != (signature.GitOptions{}):
		return nil, fmt.Errorf("there is no %s that a signature could be checked with", pb.AttrGitSigPubKey)
	case text == "":
		return nil, nil
	}
	var err error
	if s.keys, err = signature.ParseKeys(text); err != nil {
		return nil, fmt.Errorf("invalid %s: %w", pb.AttrGitSigPubKey, err)
	}
	s.id = digest.FromString(flags + text).String()
	return s, nil
}

// verify checks the signature of the commit, or of the tag that led to it. Both are here.
func (r *repository) verify(ctx context.Context, found *resolved, s *Signature) error {
	if s == nil {
		return nil
	}
	c, err := r.objects(ctx, found)
	if err != nil {
		return err
	}
	return s.keys.VerifyGit(c, s.opt)
}

// objects returns a commit and its tag as git stores them. Both are here.
func (r *repository) objects(ctx context.Context, found *resolved) (c signature.Commit, err error) {
	c.ID = found.commit
	if c.Object, err = r.run(ctx, runOpt{}, "cat-file", "commit", found.commit); err != nil {
		return c, err
	}
	if found.tag != "" {
		c.Tag, err = r.run(ctx, runOpt{}, "cat-file", "tag", found.tag)
	}
	return c, err
}
