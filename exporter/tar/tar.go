//go:build linux

// Package tar is the exporter to a tar archive on the client's side: the files of the result, not
// an image. The result of several platforms has a folder for each.
package tar

import (
	"context"
	"errors"

	"github.com/tonistiigi/fsutil"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/internal/tree"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
)

// Type is the name of the exporter.
const Type = "tar"

const attrSplit = "platform-split"

// Factory makes exporters to archives.
type Factory struct{ sessions *session.Manager }

// New returns the factory; outputs go to the sessions of the manager.
func New(sessions *session.Manager) *Factory { return &Factory{sessions} }

// Resolve reads platform-split, attestation-prefix and source-date-epoch.
func (f *Factory) Resolve(attrs map[string]string, _ compat.Version) (exporter.Instance, error) {
	i := &instance{sessions: f.sessions, prefix: attrs[tree.AttrPrefix]}
	var err error
	if v, ok := attrs[attrSplit]; ok {
		if i.split, err = exporter.ParseBool(attrSplit, v); err != nil {
			return nil, err
		}
	}
	if v, ok := attrs[exporter.AttrEpoch]; ok {
		if i.epoch, err = exporter.ParseEpoch(v); err != nil {
			return nil, err
		}
	}
	return i, nil
}

type instance struct {
	sessions *session.Manager
	split    bool
	epoch    exporter.Epoch
	// prefix begins the names of the files of attestations.
	prefix string
}

func (*instance) Name() string { return "exporting to client tarball" }

// Export sends the archive. The response is empty.
func (i *instance) Export(ctx context.Context, res *exporter.Result, env exporter.Env) (_ map[string]string, err error) {
	client, err := env.Client(ctx, i.sessions)
	if err != nil {
		return nil, err
	}
	trees, release, err := tree.OpenAll(ctx, res, env, i.epoch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := tree.Attest(ctx, trees, res, env, i.prefix, false); err != nil {
		return nil, err
	}
	fs := trees[0].FS
	if res.Multi() || i.split {
		if fs, err = tree.Split(trees); err != nil {
			return nil, err
		}
	}
	done := env.Scope.Step("sending tarball")
	return nil, done(write(ctx, client, env.ID, fs))
}

// write sends a tree as an archive.
func write(ctx context.Context, client *session.Caller, id int, fs fsutil.FS) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w, err := filesync.NewFileWriter(ctx, client, id, nil)
	if err != nil {
		return err
	}
	if err := fsutil.WriteTar(ctx, fs, w); err != nil {
		cancel(err) // the client must not take what it got for the whole
		_ = w.Close()
		return err
	}
	return w.Close()
}
