//go:build linux

// Package exportertest gives the tests of exporters what a daemon has: a cache with trees in it,
// and a client that takes outputs over a session. Nothing but tests imports it.
package exportertest

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/snapshot"
)

// Bench is a daemon with one client.
type Bench struct {
	t        testing.TB
	Cache    *cache.Manager
	Sessions *session.Manager
	// Session is the client's.
	Session string
	// Dir is where the client takes output 0 as a directory, File what it took of output 1.
	Dir  string
	File *File

	mu       sync.Mutex
	statuses []event.Status
	warnings []string
}

// File is an output file in memory.
type File struct {
	bytes.Buffer
	// Meta is what came with it; Closed and Aborted tell how it ended.
	Meta            map[string]string
	Closed, Aborted bool
	// Had makes the client say that it has the content.
	Had bool
}

// Close ends the file.
func (f *File) Close() error { f.Closed = true; return nil }

// CloseWithError ends the file in failure.
func (f *File) CloseWithError(error) error { f.Aborted = true; return nil }

// New starts a daemon and a client that removes what is not in the output if remove. Services are
// offered by the client besides.
func New(t testing.TB, remove bool, services ...session.Attachable) *Bench {
	t.Helper()
	m, err := cache.Open(t.Context(), cache.Config{Root: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	b := &Bench{t: t, Cache: m, Sessions: session.NewManager(), Dir: t.TempDir(), File: &File{}}
	target := filesync.NewTarget(map[int]filesync.Output{
		0: {Dir: b.Dir, Delete: remove},
		1: {Open: func(meta map[string]string) (io.WriteCloser, error) {
			b.File.Meta = meta
			if b.File.Had {
				return nil, errdefs.ErrAlreadyExists
			}
			return b.File, nil
		}},
	})
	b.Session = sessiontest.Join(b.t, b.Sessions, nil, append(services, target)...).ID()
	return b
}

// Tree makes a tree on parent, filled by fill. It is released when the test ends.
func (b *Bench) Tree(parent *cache.Ref, text string, fill func(dir string)) *cache.Ref {
	b.t.Helper()
	ctx := b.t.Context()
	m, err := b.Cache.New(ctx, parent, cache.Access{}, cache.NewOpt{Description: cache.Description{Text: text}})
	must(b.t, err)
	mountable, err := m.Mount(ctx, false)
	must(b.t, err)
	dir, unmount, err := snapshot.MountTemp(mountable)
	must(b.t, err)
	fill(dir)
	must(b.t, unmount())
	ref, err := m.Commit(ctx)
	must(b.t, err)
	b.t.Cleanup(func() { must(b.t, ref.Release(context.Background())) })
	return ref
}

// Env is that of an exporter with output id.
func (b *Bench) Env(id int) exporter.Env {
	ids := session.IDs{b.Session}
	return exporter.Env{
		ID: id, Sessions: ids, Access: cache.Access{Sessions: ids},
		Platform: platforms.MustParse("linux/amd64"),
		Scope: event.NewScope(event.SinkFunc(func(batch event.Batch) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.statuses = append(b.statuses, batch.Statuses...)
			for _, w := range batch.Warnings {
				b.warnings = append(b.warnings, string(w.Short))
			}
		}), "sha256:test"),
	}
}

// Export runs an exporter with output id and returns its response.
func (b *Bench) Export(f exporter.Factory, attrs map[string]string, res *exporter.Result, id int) (map[string]string, error) {
	b.t.Helper()
	inst, err := f.Resolve(attrs, compat.Current)
	if err != nil {
		return nil, err
	}
	return inst.Export(b.t.Context(), res, b.Env(id))
}

// Completed returns the ids of the statuses that were completed, in their order.
func (b *Bench) Completed() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for _, s := range b.statuses {
		if s.Completed != nil {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Warnings returns the warnings.
func (b *Bench) Warnings() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.warnings
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
