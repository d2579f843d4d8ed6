//go:build linux

// Package local is the exporter to a directory of the client. The result of one platform goes
// into the directory itself, that of several into a folder for each, unless that is turned off.
// Files are sent with session/filesync; what the client does about owners and files that are in
// the way is the client's.
package local

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/internal/tree"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
)

// Type is the name of the exporter.
const Type = "local"

const (
	attrSplit = "platform-split"
	attrMode  = "mode"
)

// Factory makes exporters to directories.
type Factory struct{ sessions *session.Manager }

// New returns the factory; outputs go to the sessions of the manager.
func New(sessions *session.Manager) *Factory { return &Factory{sessions} }

// Resolve reads platform-split, mode, attestation-prefix and source-date-epoch.
func (f *Factory) Resolve(attrs map[string]string, _ compat.Version) (exporter.Instance, error) {
	i := &instance{sessions: f.sessions}
	for k, v := range attrs {
		var err error
		switch k {
		case attrSplit:
			var b bool
			b, err = exporter.ParseBool(k, v)
			i.split = &b
		case attrMode:
			i.remove, err = parseMode(v)
		case exporter.AttrEpoch:
			i.epoch, err = exporter.ParseEpoch(v)
		case tree.AttrPrefix:
			i.prefix = v
		}
		if err != nil {
			return nil, err
		}
	}
	return i, nil
}

func parseMode(v string) (remove bool, err error) {
	switch v {
	case "", "copy":
		return false, nil
	case "delete":
		return true, nil
	}
	return false, fmt.Errorf("invalid local exporter mode %q", v)
}

type instance struct {
	sessions *session.Manager
	// split is nil if not given.
	split *bool
	// remove asks the client to remove what the result does not have.
	remove bool
	epoch  exporter.Epoch
	// prefix begins the names of the files of attestations.
	prefix string
}

func (*instance) Name() string { return "exporting to client directory" }

// Export sends the result. The response is empty.
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
	if err := tree.Attest(ctx, trees, res, env, i.prefix, !i.splits(res)); err != nil {
		return nil, err
	}
	transfers, err := i.plan(ctx, res, trees)
	if err != nil {
		return nil, err
	}
	eg, ctx := errgroup.WithContext(ctx)
	for _, t := range transfers {
		eg.Go(func() error { return t.send(ctx, client, env, len(transfers) == 1) })
	}
	return nil, eg.Wait()
}

// transfer is one tree on its way.
type transfer struct {
	name string
	fs   fsutil.FS
}

// splits reports whether each platform has a folder of its own.
func (i *instance) splits(res *exporter.Result) bool {
	if i.split != nil {
		return *i.split
	}
	return res.Multi()
}

// plan says what is sent. A client that is to remove files must get all in one transfer.
func (i *instance) plan(ctx context.Context, res *exporter.Result, trees []tree.Tree) ([]transfer, error) {
	const name = "copying files"
	if !i.splits(res) {
		fs, err := tree.Union(ctx, trees)
		return []transfer{{name, fs}}, err
	}
	// All at once, so that names that are the same are found.
	all, err := tree.Split(trees)
	if err != nil || i.remove {
		return []transfer{{name, all}}, err
	}
	var transfers []transfer
	for _, t := range trees {
		fs, err := tree.Split([]tree.Tree{t})
		if err != nil {
			return nil, err
		}
		transfers = append(transfers, transfer{name + " " + t.ID, fs})
	}
	return transfers, nil
}

func (t transfer) send(ctx context.Context, client *session.Caller, env exporter.Env, all bool) error {
	return filesync.Send(ctx, client, t.fs, filesync.SendOpt{
		ExporterID: env.ID, AllPlatforms: all, Progress: progress(env.Scope, t.name),
	})
}

// progress shows the bytes that were moved.
func progress(scope event.Scope, id string) filesync.Progress {
	start := time.Now()
	return func(n int64, last bool) {
		st := event.Status{ID: id, Current: n, Started: &start, Timestamp: time.Now()}
		if last {
			st.Completed = &st.Timestamp
		}
		scope.Status(st)
	}
}
