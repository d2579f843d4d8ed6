//go:build linux

package filesync_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestATreeArrivesAsItWas(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	plant(t, src)
	receive(t, offering(t, src), filesync.ReceiveOpt{Dest: dst})
	require.Equal(t, tree(t, src), tree(t, dst))
}

func TestADestinationIsBroughtUpToDate(t *testing.T) {
	for name, differ := range map[string]filesync.Differ{"by metadata": filesync.DiffMetadata, "whatever it has": filesync.DiffNone} {
		t.Run(name, func(t *testing.T) {
			src, dst := tmpfs(t), tmpfs(t)
			plant(t, src)
			c := offering(t, src)
			var state bytes.Buffer
			receive(t, c, filesync.ReceiveOpt{Dest: dst, NextState: &state, Differ: differ})
			change(t, src)
			var next bytes.Buffer
			receive(t, c, filesync.ReceiveOpt{Dest: dst, PrevState: &state, NextState: &next, Differ: differ})
			require.Equal(t, tree(t, src), tree(t, dst))
			receive(t, c, filesync.ReceiveOpt{Dest: dst, PrevState: &next, Differ: differ})
			require.Equal(t, tree(t, src), tree(t, dst))
			// Without a state, what is there is made to fit all the same.
			change(t, src)
			receive(t, c, filesync.ReceiveOpt{Dest: dst, Differ: differ})
			require.Equal(t, tree(t, src), tree(t, dst))
		})
	}
}

// change turns much of what plant makes into something else; it may be called again.
func change(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("a"), []byte("other"), 0o644))
	require.NoError(t, os.RemoveAll(at("empty")))
	require.NoError(t, os.MkdirAll(at("empty/now/a/dir"), 0o755))
	require.NoError(t, os.RemoveAll(at("a.b")))
	require.NoError(t, os.WriteFile(at("a.b"), []byte("a file"), 0o644))
	require.NoError(t, os.RemoveAll(at("sym")))
	require.NoError(t, os.Mkdir(at("sym"), 0o755))
	require.NoError(t, os.WriteFile(at("sym/file"), nil, 0o644))
	require.NoError(t, os.RemoveAll(at("large")))
	require.NoError(t, os.Symlink("a", at("large")))
	require.NoError(t, os.RemoveAll(at("closed/in")))
	require.NoError(t, os.RemoveAll(at("pipe")))
	require.NoError(t, os.WriteFile(at("pipe"), []byte("not a pipe"), 0o644))
	require.NoError(t, os.Chmod(at("sticky"), 0o711))
	_ = unix.Removexattr(at("sticky"), "user.test") // not every tree has it
}

func TestOnlyWhatMayHaveChangedIsAskedFor(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	many(t, src, 300)
	f := filepath.Join(src, "d00/e01/f07")
	require.NoError(t, os.Chtimes(f, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	waitForSettledTimes(t, src)
	_, c := sessiontest.Connect(t, filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, src)}))
	sync := func(state *bytes.Buffer) (changed []string) {
		var prev *bytes.Reader
		opt := filesync.ReceiveOpt{Dest: dst, NextState: state, Notify: func(_ fsutil.ChangeKind, p string, _ *types.Stat, _ digest.Digest) error {
			changed = append(changed, p)
			return nil
		}}
		if state.Len() > 0 {
			prev = bytes.NewReader(slices.Clone(state.Bytes()))
			opt.PrevState = prev
			state.Reset()
		}
		receive(t, c, opt)
		return changed
	}
	var state bytes.Buffer
	require.Len(t, sync(&state), 300+4)
	require.Empty(t, sync(&state))

	// Same size, same time, other content.
	data, err := os.ReadFile(f)
	require.NoError(t, err)
	copy(data, "changed")
	require.NoError(t, os.WriteFile(f, data, 0o644))
	require.NoError(t, os.Chtimes(f, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	waitForSettledTimes(t, src)
	require.Equal(t, []string{"d00/e01/f07"}, sync(&state))
	require.Equal(t, tree(t, src), tree(t, dst))

	require.NoError(t, os.Remove(f))
	require.Equal(t, []string{"d00/e01/f07"}, sync(&state))
	require.Equal(t, tree(t, src), tree(t, dst))
}

func TestTheFirstChangeIsAnnounced(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	plant(t, src)
	waitForSettledTimes(t, src)
	_, c := sessiontest.Connect(t, filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, src)}))
	var state bytes.Buffer
	receive(t, c, filesync.ReceiveOpt{Dest: dst, NextState: &state})
	var calls atomic.Int64
	opt := filesync.ReceiveOpt{Name: "src", Dest: dst, PrevState: bytes.NewReader(slices.Clone(state.Bytes()))}
	opt.Changing = func() error { calls.Add(1); return nil }
	require.NoError(t, os.WriteFile(filepath.Join(src, "new"), []byte("x"), 0o644))
	require.NoError(t, os.RemoveAll(filepath.Join(src, "large")))
	before := tree(t, dst)
	failing := opt
	failing.Changing = func() error { return errors.New("not now") }
	require.ErrorContains(t, filesync.Receive(t.Context(), c, failing), "not now")
	require.Equal(t, before, tree(t, dst))

	opt.PrevState = bytes.NewReader(slices.Clone(state.Bytes()))
	receive(t, c, opt)
	require.Equal(t, int64(1), calls.Load())
	require.Equal(t, tree(t, src), tree(t, dst))
}

func TestNothingIsChangedOfWhatIsTheSame(t *testing.T) {
	for name, tc := range map[string]struct {
		differ  filesync.Differ
		foreign bool
		changes bool
	}{
		"by metadata":                   {differ: filesync.DiffMetadata},
		"by metadata, foreign client":   {differ: filesync.DiffMetadata, foreign: true},
		"by change tokens":              {differ: filesync.DiffNone},
		"not at all without any tokens": {differ: filesync.DiffNone, foreign: true, changes: true},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := tmpfs(t), tmpfs(t)
			for i := range 20 {
				data := bytes.Repeat([]byte{byte(i)}, i*30_000)
				require.NoError(t, os.WriteFile(filepath.Join(src, fmt.Sprint(i)), data, 0o644))
			}
			age(t, src)
			waitForSettledTimes(t, src)
			c := offering(t, src)
			if tc.foreign {
				_, c = sessiontest.Connect(t, foreign(src, ""))
			}
			var state bytes.Buffer
			receive(t, c, filesync.ReceiveOpt{Dest: dst, NextState: &state, Differ: tc.differ})
			changed := false
			receive(t, c, filesync.ReceiveOpt{Dest: dst, PrevState: &state, Differ: tc.differ, Changing: func() error {
				changed = true
				return nil
			}})
			require.Equal(t, tc.changes, changed)
			require.Equal(t, tree(t, src), tree(t, dst))
		})
	}
}

func TestAFileThatOnlySeemsTheSameIsReplaced(t *testing.T) {
	for name, there := range map[string]string{
		"another end":   strings.Repeat("x", 199_999) + "y",
		"another start": "y" + strings.Repeat("x", 199_999),
		"longer":        strings.Repeat("x", 200_001),
		"shorter":       strings.Repeat("x", 199_999),
		"empty":         "",
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := tmpfs(t), tmpfs(t)
			require.NoError(t, os.WriteFile(filepath.Join(src, "f"), bytes.Repeat([]byte("x"), 200_000), 0o644))
			waitForSettledTimes(t, src)
			c := offering(t, src)
			var state bytes.Buffer
			receive(t, c, filesync.ReceiveOpt{Dest: dst, NextState: &state, Differ: filesync.DiffNone})
			require.NoError(t, os.WriteFile(filepath.Join(dst, "f"), []byte(there), 0o644))
			receive(t, c, filesync.ReceiveOpt{Dest: dst, PrevState: &state, Differ: filesync.DiffNone})
			require.Equal(t, tree(t, src), tree(t, dst))
		})
	}
}

// age makes everything in a directory an hour older.
func age(t *testing.T, dir string) {
	t.Helper()
	past := time.Now().Add(-time.Hour)
	require.NoError(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(p, past, past))
	}))
}

func TestFilesThatHaveJustChangedAreAskedForOnce(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	f := filepath.Join(src, "f")
	_, c := sessiontest.Connect(t, filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, src)}))
	var state bytes.Buffer
	sync := func() (changed int) {
		opt := filesync.ReceiveOpt{Dest: dst, Notify: func(fsutil.ChangeKind, string, *types.Stat, digest.Digest) error {
			changed++
			return nil
		}}
		if state.Len() > 0 {
			opt.PrevState = bytes.NewReader(slices.Clone(state.Bytes()))
		}
		state.Reset()
		opt.NextState = &state
		receive(t, c, opt)
		return changed
	}
	old := time.Unix(1e9, 0)
	for _, text := range []string{"one", "two", "six"} {
		require.NoError(t, os.WriteFile(f, []byte(text), 0o644))
		require.NoError(t, os.Chtimes(f, old, old))
		require.Equal(t, 1, sync(), text)
		got, err := os.ReadFile(filepath.Join(dst, "f"))
		require.NoError(t, err)
		require.Equal(t, text, string(got))
		require.Zero(t, sync(), "nothing has changed since")
	}
}

func TestPathsThatAreFollowedLeadWhereTheyCan(t *testing.T) {
	src := tmpfs(t)
	require.NoError(t, os.MkdirAll(filepath.Join(src, "d"), 0o755))
	for _, p := range []string{"a.txt", "d/b.txt"} {
		require.NoError(t, os.WriteFile(filepath.Join(src, p), nil, 0o644))
	}
	require.NoError(t, os.Symlink("a.txt", filepath.Join(src, "link.txt")))
	for follow, want := range map[string][]string{
		"link.txt":       {"a.txt", "link.txt"},
		"*.txt":          {"a.txt", "link.txt"},
		"**/*.txt":       {"a.txt", "d", "d/b.txt", "link.txt"}, // link.txt/*.txt as well
		"a.txt/*":        nil,
		"a.txt/b/c":      nil,
		"link.txt/x":     {"link.txt"},
		"nothing/*/here": nil,
	} {
		t.Run(follow, func(t *testing.T) {
			dst := tmpfs(t)
			receive(t, offering(t, src), filesync.ReceiveOpt{Dest: dst, FollowPaths: []string{follow}})
			var got []string
			require.NoError(t, filepath.WalkDir(dst, func(p string, _ fs.DirEntry, err error) error {
				if rel, _ := filepath.Rel(dst, p); rel != "." {
					got = append(got, rel)
				}
				return err
			}))
			require.Equal(t, want, got)
		})
	}
}

// waitForSettledTimes returns when a new file's change time is well past those in dir.
func waitForSettledTimes(t *testing.T, dir string) {
	t.Helper()
	start := time.Now()
	require.Eventually(t, func() bool { return time.Since(start) > 60*time.Millisecond }, time.Second, 5*time.Millisecond)
}

func TestHashesAndNotices(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	plant(t, src)
	got := map[string]string{}
	var last string
	receive(t, offering(t, src), filesync.ReceiveOpt{
		Dest: dst,
		Hasher: func(st *types.Stat) (hash.Hash, error) {
			h := sha256.New()
			fmt.Fprintf(h, "%s|", st.Path)
			return h, nil
		},
		Notify: func(kind fsutil.ChangeKind, p string, st *types.Stat, dgst digest.Digest) error {
			require.Equal(t, fsutil.ChangeKindAdd, kind)
			require.Equal(t, p, st.Path)
			got[p] = dgst.String()
			last = p
			return nil
		},
	})
	want := func(p, text string) string { return digest.FromString(p + "|" + text).String() }
	require.Equal(t, want("a", "first"), got["a"])
	require.Equal(t, want("z-link", "first"), got["z-link"])
	require.Equal(t, want("a.b/deep", ""), got["a.b/deep"])
	require.Equal(t, want("empty", ""), got["empty"])
	require.Equal(t, want("sym", ""), got["sym"])
	require.Equal(t, want("large", strings.Repeat("0123456789abcdef", 100_000)), got["large"])
	require.NotEmpty(t, last)
}

func TestPatternsNarrowATransfer(t *testing.T) {
	src := tmpfs(t)
	plant(t, src)
	require.NoError(t, os.Symlink("a.b/deep", filepath.Join(src, "to-deep")))
	for name, tc := range map[string]struct {
		opt  filesync.ReceiveOpt
		want []string
	}{
		"includes":                            {filesync.ReceiveOpt{IncludePatterns: []string{"a", "closed/*"}}, []string{"a", "closed", "closed/in"}},
		"excludes":                            {filesync.ReceiveOpt{ExcludePatterns: []string{"*", "!a.b/deep/er"}}, []string{"a.b", "a.b/deep", "a.b/deep/er", "a.b/deep/er/file"}},
		"followed links":                      {filesync.ReceiveOpt{FollowPaths: []string{"to-deep/er"}}, []string{"a.b", "a.b/deep", "a.b/deep/er", "a.b/deep/er/file", "to-deep"}},
		"names beyond ASCII":                  {filesync.ReceiveOpt{IncludePatterns: []string{"ünï"}}, []string{"ünï"}},
		"a link whose first path is left out": {filesync.ReceiveOpt{IncludePatterns: []string{"z-link"}}, []string{"z-link"}},
		"nothing":                             {filesync.ReceiveOpt{IncludePatterns: []string{"nothing"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dst := tmpfs(t)
			tc.opt.Dest = dst
			receive(t, offering(t, src), tc.opt)
			require.Equal(t, tc.want, names(tree(t, dst)))
		})
	}
}

func names(tree string) (out []string) {
	for line := range strings.Lines(tree) {
		name, _, _ := strings.Cut(line, " ")
		out = append(out, name)
	}
	return out
}

func TestMetadataWithoutContent(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	plant(t, src)
	c := offering(t, src)
	for range 2 {
		receive(t, c, filesync.ReceiveOpt{Dest: dst, MetadataOnly: true, MetadataOnlyExcept: []string{"a.b/**/file"}})
		require.Equal(t, []string{filesync.MetadataPath, "a.b", "a.b/deep", "a.b/deep/er", "a.b/deep/er/file"}, names(tree(t, dst)))
	}
	data, err := os.ReadFile(filepath.Join(dst, filesync.MetadataPath))
	require.NoError(t, err)
	var paths []string
	for len(data) > 0 {
		n := int(data[0]) | int(data[1])<<8 | int(data[2])<<16 | int(data[3])<<24
		st := &types.Stat{}
		require.NoError(t, st.UnmarshalVT(data[4:4+n]))
		paths = append(paths, st.Path)
		data = data[4+n:]
	}
	require.ElementsMatch(t, names(tree(t, src)), paths)
}

func TestAnUnknownDirectoryIsRefused(t *testing.T) {
	c := offering(t, tmpfs(t))
	err := filesync.Receive(t.Context(), c, filesync.ReceiveOpt{Name: "x", Dest: tmpfs(t)})
	require.EqualError(t, err, `no access allowed to dir "x"`)
	require.True(t, errdefs.IsNotFound(err))
	_, c = sessiontest.Connect(t)
	err = filesync.Receive(t.Context(), c, filesync.ReceiveOpt{Name: "x", Dest: tmpfs(t)})
	require.EqualError(t, err, "no local sources enabled")
}

func TestOwnersAreMapped(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	plant(t, src)
	require.NoError(t, os.Lchown(filepath.Join(src, "a"), 5, 6))
	receive(t, offering(t, src), filesync.ReceiveOpt{Dest: dst, Map: func(p string, st *types.Stat) bool {
		st.Uid += 7
		return p != "a.b" && p != "sym"
	}})
	out := tree(t, dst)
	require.Contains(t, out, "a -rw-r--r-- 7:0 ")
	require.NotContains(t, out, "a.b")
	require.NotContains(t, out, "sym")
}

func TestAFileThatCanNotBeReadIsNamed(t *testing.T) {
	src := tmpfs(t)
	many(t, src, 3)
	_, c := sessiontest.Connect(t, filesync.NewProvider(map[string]fsutil.FS{"src": unreadable{localFS(t, src)}}))
	err := filesync.Receive(t.Context(), c, filesync.ReceiveOpt{Name: "src", Dest: tmpfs(t)})
	require.ErrorContains(t, err, "d00/e00/f01")
	require.ErrorContains(t, err, "permission denied")
}
