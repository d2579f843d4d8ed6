package checksum_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/checksum"
	"github.com/openbuildkit/buildkit/snapshot"
)

type lab struct {
	t *testing.T
	m *cache.Manager
	c *checksum.Cache
}

func newLab(t *testing.T) *lab {
	t.Helper()
	m, err := cache.Open(t.Context(), cache.Config{Root: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return &lab{t: t, m: m, c: checksum.New()}
}

// tree makes an immutable tree of what fill writes.
func (l *lab) tree(fill func(dir string)) *cache.Ref {
	l.t.Helper()
	mut, err := l.m.New(l.t.Context(), nil, cache.Access{}, cache.NewOpt{})
	require.NoError(l.t, err)
	mnt, err := mut.Mount(l.t.Context(), false)
	require.NoError(l.t, err)
	dir, release, err := snapshot.MountTemp(mnt)
	require.NoError(l.t, err)
	fill(dir)
	require.NoError(l.t, release())
	ref, err := mut.Commit(l.t.Context())
	require.NoError(l.t, err)
	l.t.Cleanup(func() { require.NoError(l.t, ref.Release(l.t.Context())) })
	return ref
}

func (l *lab) digest(ref *cache.Ref, path string, opt checksum.Opt) digest.Digest {
	l.t.Helper()
	d, err := l.c.Digest(l.t.Context(), ref, path, opt, cache.Access{})
	require.NoError(l.t, err)
	require.NoError(l.t, d.Validate())
	return d
}

func write(t *testing.T, dir, name, data string) {
	t.Helper()
	p := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(data), 0o644))
}

func sample(t *testing.T) func(string) {
	return func(dir string) {
		write(t, dir, "a/one.txt", "1")
		write(t, dir, "a/two.md", "2")
		write(t, dir, "a/sub/deep.txt", "3")
		write(t, dir, "b/other", "4")
		require.NoError(t, os.Symlink("/a/sub", filepath.Join(dir, "link")))
		require.NoError(t, os.Symlink("../../../../a", filepath.Join(dir, "b/out")))
		require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	}
}

func TestEqualTreesHaveEqualDigestsAndTimesDoNotCount(t *testing.T) {
	l := newLab(t)
	one := l.tree(sample(t))
	two := l.tree(func(dir string) {
		sample(t)(dir)
		ts := []unix.Timespec{{Sec: 1}, {Sec: 1}}
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "a/one.txt"), ts, 0))
	})
	for _, p := range []string{"/", "/a", "a/one.txt", "/link/deep.txt", "/b/out/two.md"} {
		require.Equal(t, l.digest(one, p, checksum.Opt{FollowLinks: true}), l.digest(two, p, checksum.Opt{FollowLinks: true}), p)
	}
}

func TestWhatAStepCanSeeChangesTheDigest(t *testing.T) {
	l := newLab(t)
	base := l.digest(l.tree(sample(t)), "/a", checksum.Opt{})
	for name, change := range map[string]func(dir string){
		"bytes": func(dir string) { write(t, dir, "a/sub/deep.txt", "x") },
		"mode":  func(dir string) { require.NoError(t, os.Chmod(filepath.Join(dir, "a/one.txt"), 0o600)) },
		"owner": func(dir string) { require.NoError(t, os.Lchown(filepath.Join(dir, "a/one.txt"), 7, 0)) },
		"a name": func(dir string) {
			require.NoError(t, os.Rename(filepath.Join(dir, "a/two.md"), filepath.Join(dir, "a/2.md")))
		},
		"a new file": func(dir string) { write(t, dir, "a/new", "") },
		"a type":     func(dir string) { require.NoError(t, unix.Mkfifo(filepath.Join(dir, "a/fifo"), 0o644)) },
		"an xattr": func(dir string) {
			require.NoError(t, unix.Setxattr(filepath.Join(dir, "a/one.txt"), "user.x", []byte("y"), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ref := l.tree(func(dir string) {
				sample(t)(dir)
				change(dir)
			})
			require.NotEqual(t, base, l.digest(ref, "/a", checksum.Opt{}))
		})
	}
	t.Run("not what lies beside it", func(t *testing.T) {
		ref := l.tree(func(dir string) {
			sample(t)(dir)
			write(t, dir, "b/other", "changed")
		})
		require.Equal(t, base, l.digest(ref, "/a", checksum.Opt{}))
	})
}

func TestHardLinksAreFiles(t *testing.T) {
	l := newLab(t)
	linked := l.tree(func(dir string) {
		write(t, dir, "a", "x")
		require.NoError(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	})
	copied := l.tree(func(dir string) {
		write(t, dir, "a", "x")
		write(t, dir, "b", "x")
	})
	require.Equal(t, l.digest(copied, "/", checksum.Opt{}), l.digest(linked, "/", checksum.Opt{}))
}

func TestPathsAreConfinedToTheTree(t *testing.T) {
	l := newLab(t)
	ref := l.tree(sample(t))
	require.Equal(t, l.digest(ref, "/a", checksum.Opt{}), l.digest(ref, "/../../a", checksum.Opt{}))
	require.Equal(t, l.digest(ref, "/a/two.md", checksum.Opt{}), l.digest(ref, "/b/out/two.md", checksum.Opt{}))
	_, err := l.c.Digest(t.Context(), ref, "/loop", checksum.Opt{FollowLinks: true}, cache.Access{})
	require.ErrorContains(t, err, "too many links")
	l.digest(ref, "/loop", checksum.Opt{})
	for _, p := range []string{"/nosuch", "/a/nosuch/x", "/a/one.txt/x"} {
		_, err := l.c.Digest(t.Context(), ref, p, checksum.Opt{}, cache.Access{})
		var nf *checksum.NotFoundError
		require.ErrorAs(t, err, &nf)
		require.EqualError(t, err, `"`+p+`": not found`)
	}
	_, err = l.c.Digest(t.Context(), nil, "/x", checksum.Opt{}, cache.Access{})
	require.EqualError(t, err, `"/x": not found`)
	l.digest(nil, "/", checksum.Opt{})
}

func TestWildcardsMatchNames(t *testing.T) {
	l := newLab(t)
	ref := l.tree(sample(t))
	all := l.digest(ref, "/a/*.txt", checksum.Opt{Wildcard: true})
	changed := l.tree(func(dir string) {
		sample(t)(dir)
		write(t, dir, "a/two.md", "unseen")
	})
	require.Equal(t, all, l.digest(changed, "/a/*.txt", checksum.Opt{Wildcard: true}))
	more := l.tree(func(dir string) {
		sample(t)(dir)
		write(t, dir, "a/three.txt", "3")
	})
	require.NotEqual(t, all, l.digest(more, "/a/*.txt", checksum.Opt{Wildcard: true}))
	linked := l.tree(func(dir string) {
		sample(t)(dir)
		require.NoError(t, os.Symlink("a", filepath.Join(dir, "z")))
	})
	require.Equal(t, l.digest(ref, "/*/one.txt", checksum.Opt{Wildcard: true}), l.digest(linked, "/*/one.txt", checksum.Opt{Wildcard: true}))
	require.NotEqual(t, l.digest(ref, "/none*", checksum.Opt{Wildcard: true}), l.digest(linked, "/z/*.txt", checksum.Opt{Wildcard: true}))
	l.digest(ref, "/none*", checksum.Opt{Wildcard: true})
	_, err := l.c.Digest(t.Context(), ref, "/[", checksum.Opt{Wildcard: true}, cache.Access{})
	require.Error(t, err)
}

func TestPatternsLeaveThingsOut(t *testing.T) {
	l := newLab(t)
	ref := l.tree(sample(t))
	other := l.tree(func(dir string) {
		sample(t)(dir)
		write(t, dir, "a/two.md", "changed")
	})
	for _, opt := range []checksum.Opt{{Exclude: []string{"*.md"}}, {Include: []string{"**/*.txt"}}, {Include: []string{"sub"}}} {
		require.Equal(t, l.digest(ref, "/a", opt), l.digest(other, "/a", opt))
	}
	require.NotEqual(t, l.digest(ref, "/a", checksum.Opt{Include: []string{"*.md"}}), l.digest(other, "/a", checksum.Opt{Include: []string{"*.md"}}))
	require.NotEqual(t, l.digest(ref, "/a", checksum.Opt{Exclude: []string{"*", "!two.md"}}), l.digest(other, "/a", checksum.Opt{Exclude: []string{"*", "!two.md"}}))
	_, err := l.c.Digest(t.Context(), ref, "/a", checksum.Opt{Required: []string{"/a/no*"}}, cache.Access{})
	require.EqualError(t, err, `"/a/no*": not found`)
	l.digest(ref, "/a", checksum.Opt{Required: []string{"/a/*.md"}})
}

func TestDigestsAreKeptAndSeedsAgreeWithTheTree(t *testing.T) {
	l := newLab(t)
	ref := l.tree(sample(t))
	want := l.digest(ref, "/", checksum.Opt{})
	l.c = checksum.New()
	require.Equal(t, want, l.digest(ref, "/", checksum.Opt{}), "from what was stored")

	var entries checksum.List
	seeded := l.tree(func(dir string) {
		sample(t)(dir)
		require.NoError(t, filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
			require.NoError(t, err)
			rel, err := filepath.Rel(dir, p)
			require.NoError(t, err)
			st, err := fsutil.Stat(p)
			require.NoError(t, err)
			if rel == "." {
				return nil
			}
			e := checksum.EntryOf(st)
			if e.Kind == checksum.File {
				data, err := os.ReadFile(p)
				require.NoError(t, err)
				raw := digest.FromBytes(data)
				copy(e.Content[:], mustHex(t, raw.Encoded()))
				e.Hashed = true
			}
			entries = append(entries, checksum.Named{Path: rel, Entry: e})
			return nil
		}))
	})
	l.c.Seed(seeded, entries)
	require.Equal(t, want, l.digest(seeded, "/", checksum.Opt{}))
	require.Equal(t, l.digest(ref, "/link/deep.txt", checksum.Opt{}), l.digest(seeded, "/link/deep.txt", checksum.Opt{}))
}

// Errors speak of the tree, not of where it is mounted, which makes paths longer.
func TestErrorsNamePathsOfTheTree(t *testing.T) {
	l := newLab(t)
	ref := l.tree(func(dir string) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		for range 2040 {
			require.NoError(t, unix.Mkdirat(fd, "d", 0o755))
			next, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			require.NoError(t, unix.Close(fd))
			fd = next
		}
		require.NoError(t, unix.Close(fd))
	})
	_, err := l.c.Digest(t.Context(), ref, "/", checksum.Opt{}, cache.Access{})
	require.ErrorIs(t, err, unix.ENAMETOOLONG)
	require.Regexp(t, "^[a-z]+ (/d)+: file name too long$", err.Error())
}
