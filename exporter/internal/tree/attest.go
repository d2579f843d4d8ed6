//go:build linux

package tree

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/attest"
)

// AttrPrefix is the attribute with what the names of the files of attestations begin with.
const AttrPrefix = "attestation-prefix"

// Attest adds to every tree, as files in its root, what is said of its part of the result, but for
// what is only for outputs that can hold it anyway. If the trees are to be laid over each other,
// the names of the files tell the platform.
func Attest(ctx context.Context, trees []Tree, res *exporter.Result, env exporter.Env, prefix string, union bool) error {
	for i, t := range trees {
		var atts []exporter.Attestation
		for _, a := range res.Attestations[t.ID] {
			if !a.InlineOnly() {
				atts = append(atts, a)
			}
		}
		predicates, err := attest.Load(ctx, atts, attest.Options{Access: env.Access, Scope: env.Scope})
		if err != nil {
			return err
		}
		if len(predicates) == 0 {
			continue
		}
		subjects, err := files(ctx, t.FS)
		if err != nil {
			return err
		}
		platform := ""
		if union && len(trees) > 1 {
			platform = t.ID
		}
		if trees[i].FS, err = withStatements(t, predicates, subjects, prefix, platform); err != nil {
			return err
		}
	}
	return nil
}

// files returns every regular file of a tree as a subject.
func files(ctx context.Context, tree fsutil.FS) ([]attest.Subject, error) {
	subjects := []attest.Subject{}
	err := tree.Walk(ctx, "", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return fmt.Errorf("digest %s: %w", name, err)
		}
		subjects = append(subjects, attest.Subject{
			Name: filepath.ToSlash(name), Digest: map[string]string{"sha256": hex.EncodeToString(h.Sum(nil))},
		})
		return nil
	})
	return subjects, err
}

// withStatements returns a tree with a file for each statement.
func withStatements(t Tree, predicates []attest.Predicate, subjects []attest.Subject, prefix, platform string) (fsutil.FS, error) {
	out := &withFiles{FS: t.FS, data: map[string][]byte{}}
	modTime := time.Now()
	if t.Epoch != nil {
		modTime = *t.Epoch
	}
	for _, p := range predicates {
		name := prefix + p.Name
		if platform != "" {
			ext := path.Ext(name)
			name = strings.TrimSuffix(name, ext) + "." + strings.ReplaceAll(platform, "/", "_") + ext
		}
		if !fs.ValidPath(name) || strings.ContainsAny(name, "/\\\x00") || name == "." {
			return nil, invalid("attestation path name %q cannot be the name of a file", name)
		}
		if _, dup := out.data[name]; dup {
			return nil, invalid("duplicate attestation path name %s", name)
		}
		data, err := json.MarshalIndent(p.Statement(subjects), "", "  ")
		if err != nil {
			return nil, fmt.Errorf("attestation %q: %w", p.Name, err)
		}
		out.data[name] = data
		out.stats = append(out.stats, &types.Stat{
			Path: name, Mode: 0o600, Size: int64(len(data)), ModTime: modTime.UnixNano(),
		})
	}
	slices.SortFunc(out.stats, func(a, b *types.Stat) int { return cmp.Compare(a.Path, b.Path) })
	return out, nil
}

func invalid(format string, args ...any) error {
	return status.WithCode(fmt.Errorf(format, args...), codes.InvalidArgument)
}

// withFiles is a file system with more files in its root, which hide those of the same name.
type withFiles struct {
	fsutil.FS
	stats []*types.Stat // by name
	data  map[string][]byte
}

// Walk calls fn for everything below target, parents first.
func (w *withFiles) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	own := w.stats
	if target != "" {
		own = nil
	}
	more := func(before func(string) bool) error {
		for len(own) > 0 && before(own[0].Path) {
			st := own[0].Clone()
			own = own[1:]
			if err := fn(st.Path, &fsutil.DirEntryInfo{Stat: st}, nil); err != nil {
				return err
			}
		}
		return nil
	}
	err := w.FS.Walk(ctx, target, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fn(name, entry, err)
		}
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		if err := more(func(own string) bool { return own < top }); err != nil {
			return err
		}
		if _, hidden := w.data[top]; hidden && target == "" {
			if entry.IsDir() {
				return fmt.Errorf("the result has a folder where the attestation %s is to be", top)
			}
			return nil
		}
		if st, ok := sys(entry); ok && w.data[st.GetLinkname()] != nil && entry.Type().IsRegular() {
			return fmt.Errorf("%s of the result is a hard link to where the attestation %s is to be", name, st.GetLinkname())
		}
		return fn(name, entry, err)
	})
	if err != nil {
		return err
	}
	return more(func(string) bool { return true })
}

func sys(entry fs.DirEntry) (*types.Stat, bool) {
	info, err := entry.Info()
	if err != nil {
		return nil, false
	}
	st, ok := info.Sys().(*types.Stat)
	return st, ok
}

// Open opens a file.
func (w *withFiles) Open(name string) (io.ReadCloser, error) {
	if data, ok := w.data[filepath.ToSlash(filepath.Clean(name))]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	return w.FS.Open(name)
}
