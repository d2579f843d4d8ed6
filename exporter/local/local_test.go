//go:build linux

package local_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
	"github.com/openbuildkit/buildkit/exporter/local"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// list returns the files below dir: name and content, a target for links.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case e.IsDir():
			name += "/"
		case e.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			name += " -> " + target
		case e.Type().IsRegular():
			data, _ := os.ReadFile(path)
			name += " " + string(data)
		default:
			name += " " + e.Type().String()
		}
		all = append(all, name)
		return nil
	}))
	return all
}

const twoPlatforms = `{"Platforms":[
	{"ID":"linux/arm64","Platform":{"os":"linux","architecture":"arm64"}},
	{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}}]}`

func TestLocal(t *testing.T) {
	type trees = map[string]map[string]string
	one := trees{"": {"a": "1", "d/b": "2"}}
	two := trees{"linux/amd64": {"a": "x", "d/x": "x"}, "linux/arm64": {"d/y": "y"}}
	same := trees{"linux/amd64": {"a": "x", "b": "x"}, "linux/arm64": {"b": "y", "a": "y"}}
	for name, tc := range map[string]struct {
		trees    trees
		attrs    map[string]string
		remove   bool
		want     []string
		statuses []string
		err      string
	}{
		"one tree": {
			trees: one, want: []string{"a 1", "d/", "d/b 2", "old o"}, statuses: []string{"copying files"},
		},
		"one tree alone": {
			trees: one, attrs: map[string]string{"mode": "delete"}, remove: true,
			want: []string{"a 1", "d/", "d/b 2"}, statuses: []string{"copying files"},
		},
		"one tree in a folder": {
			trees: one, attrs: map[string]string{"platform-split": ""},
			want:     []string{"linux_amd64/", "linux_amd64/a 1", "linux_amd64/d/", "linux_amd64/d/b 2", "old o"},
			statuses: []string{"copying files linux/amd64"},
		},
		"two platforms": {
			trees: two, want: []string{
				"linux_amd64/", "linux_amd64/a x", "linux_amd64/d/", "linux_amd64/d/x x",
				"linux_arm64/", "linux_arm64/d/", "linux_arm64/d/y y", "old o",
			},
			statuses: []string{"copying files linux/amd64", "copying files linux/arm64"},
		},
		"two platforms alone": {
			trees: two, attrs: map[string]string{"mode": "delete"}, remove: true, want: []string{
				"linux_amd64/", "linux_amd64/a x", "linux_amd64/d/", "linux_amd64/d/x x",
				"linux_arm64/", "linux_arm64/d/", "linux_arm64/d/y y",
			},
			statuses: []string{"copying files"},
		},
		"two platforms over each other": {
			trees: two, attrs: map[string]string{"platform-split": "false"},
			want: []string{"a x", "d/", "d/x x", "d/y y", "old o"}, statuses: []string{"copying files"},
		},
		"two platforms with the same file": {
			trees: same, attrs: map[string]string{"platform-split": "false"}, want: []string{"old o"},
			err: "cannot overwrite a from linux/arm64 with linux/amd64 when split option is disabled",
		},
		"nothing": {trees: trees{}, want: []string{"old o"}, statuses: []string{"copying files"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := exportertest.New(t, tc.remove)
			write(t, b.Dir, map[string]string{"old": "o"})
			res := &exporter.Result{}
			for id, files := range tc.trees {
				ref := b.Tree(nil, "", func(dir string) { write(t, dir, files) })
				if id == "" {
					res.Ref = ref
					continue
				}
				if res.Refs == nil {
					res.Refs = map[string]*cache.Ref{}
					res.Metadata = map[string][]byte{exporter.KeyPlatforms: []byte(twoPlatforms)}
				}
				res.Refs[id] = ref
			}
			resp, err := b.Export(local.New(b.Sessions), tc.attrs, res, 0)
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
			} else {
				require.NoError(t, err)
			}
			require.Empty(t, resp)
			require.Equal(t, tc.want, list(t, b.Dir))
			require.ElementsMatch(t, tc.statuses, b.Completed())
		})
	}
}

func TestLocalKeepsOrSetsTimes(t *testing.T) {
	old := time.Unix(1580608922, 0)
	for name, tc := range map[string]struct {
		attrs map[string]string
		want  time.Time
	}{
		"keeps them":            {want: old},
		"sets all to the epoch": {attrs: map[string]string{exporter.AttrEpoch: "1767225600"}, want: time.Unix(1767225600, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			b := exportertest.New(t, false)
			ref := b.Tree(nil, "", func(dir string) {
				write(t, dir, map[string]string{"a": "1"})
				require.NoError(t, os.Chmod(dir+"/a", 0o4750|os.ModeSetuid))
				require.NoError(t, os.Chtimes(dir+"/a", old, old))
				require.NoError(t, os.Symlink("/etc/passwd", dir+"/l"))
			})
			_, err := b.Export(local.New(b.Sessions), tc.attrs, &exporter.Result{Ref: ref}, 0)
			require.NoError(t, err)
			info, err := os.Lstat(b.Dir + "/a")
			require.NoError(t, err)
			require.True(t, tc.want.Equal(info.ModTime()), info.ModTime())
			require.Equal(t, "urwxr-x---", info.Mode().String())
			target, err := os.Readlink(b.Dir + "/l")
			require.NoError(t, err)
			require.Equal(t, "/etc/passwd", target)
		})
	}
}

func TestLocalMakesPipes(t *testing.T) {
	b := exportertest.New(t, false)
	ref := b.Tree(nil, "", func(dir string) { require.NoError(t, unix.Mkfifo(dir+"/pipe", 0o640)) })
	_, err := b.Export(local.New(b.Sessions), nil, &exporter.Result{Ref: ref}, 0)
	require.NoError(t, err)
	info, err := os.Lstat(b.Dir + "/pipe")
	require.NoError(t, err)
	require.Equal(t, fs.ModeNamedPipe|0o640, info.Mode())
}

func TestLocalErrors(t *testing.T) {
	for attr, want := range map[string]string{
		"mode=replace":           `invalid local exporter mode "replace"`,
		"platform-split=often":   "non-bool value specified for platform-split",
		"source-date-epoch=soon": "invalid source-date-epoch",
	} {
		k, v, _ := strings.Cut(attr, "=")
		_, err := local.New(nil).Resolve(map[string]string{k: v}, compat.Current)
		require.ErrorContains(t, err, want)
	}
	t.Run("a platform that is no name", func(t *testing.T) {
		b := exportertest.New(t, false)
		res := &exporter.Result{Refs: map[string]*cache.Ref{"..": nil}, Metadata: map[string][]byte{
			exporter.KeyPlatforms: []byte(`{"Platforms":[{"ID":"..","Platform":{"os":"linux","architecture":"arm64"}}]}`),
		}}
		_, err := b.Export(local.New(b.Sessions), nil, res, 0)
		require.EqualError(t, err, `platform ".." cannot be the name of a directory`)
	})
	t.Run("no client", func(t *testing.T) {
		b := exportertest.New(t, false)
		inst, err := local.New(b.Sessions).Resolve(nil, compat.Current)
		require.NoError(t, err)
		_, err = inst.Export(t.Context(), &exporter.Result{}, exporter.Env{})
		require.ErrorContains(t, err, "no session")
	})
	t.Run("a client that takes no such output", func(t *testing.T) {
		b := exportertest.New(t, false)
		_, err := b.Export(local.New(b.Sessions), nil, &exporter.Result{}, 7)
		require.ErrorContains(t, err, fmt.Sprintf("no output for exporter %d", 7))
	})
}
