//go:build linux

package tar_test

import (
	gotar "archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
	"github.com/openbuildkit/buildkit/exporter/tar"
)

// list reads an archive: type, mode, owner, size, time, name and link of each entry.
func list(t *testing.T, r io.Reader) []string {
	t.Helper()
	var all []string
	for in := gotar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		line := fmt.Sprintf("%c %o %d/%d %d %s %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.UTC().Format(time.RFC3339), h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		for k, v := range h.PAXRecords {
			line += " " + k + "=" + v
		}
		all = append(all, line)
	}
}

func TestTarHoldsEveryKindOfFile(t *testing.T) {
	b := exportertest.New(t, false)
	old := time.Unix(1580608922, 0)
	ref := b.Tree(nil, "", func(dir string) {
		require.NoError(t, os.WriteFile(dir+"/a", []byte("a\n"), 0o644))
		require.NoError(t, os.Chown(dir+"/a", 5, 6))
		require.NoError(t, os.Link(dir+"/a", dir+"/hard"))
		require.NoError(t, os.Symlink("a", dir+"/soft"))
		require.NoError(t, unix.Mkfifo(dir+"/pipe", 0o644))
		require.NoError(t, os.Mkdir(dir+"/empty", 0o700))
		require.NoError(t, os.Mkdir(dir+"/sticky", 0o777))
		require.NoError(t, os.Chmod(dir+"/sticky", 0o777|os.ModeSticky))
		require.NoError(t, os.WriteFile(dir+"/suid", []byte("s\n"), 0o755))
		require.NoError(t, os.Chmod(dir+"/suid", 0o755|os.ModeSetuid))
		for _, name := range []string{"a", "pipe", "empty", "sticky", "suid"} {
			require.NoError(t, os.Chtimes(dir+"/"+name, old, old))
		}
	})
	_, err := b.Export(tar.New(b.Sessions), map[string]string{exporter.AttrEpoch: "1767225600"}, &exporter.Result{Ref: ref}, 1)
	require.NoError(t, err)
	require.True(t, b.File.Closed)
	require.Equal(t, []string{
		"0 644 5/6 2 2026-01-01T00:00:00Z a",
		"5 700 0/0 0 2026-01-01T00:00:00Z empty/",
		"1 644 5/6 0 2026-01-01T00:00:00Z hard -> a",
		"6 644 0/0 0 2026-01-01T00:00:00Z pipe",
		"2 777 0/0 0 2026-01-01T00:00:00Z soft -> a",
		"5 1777 0/0 0 2026-01-01T00:00:00Z sticky/",
		"0 4755 0/0 2 2026-01-01T00:00:00Z suid",
	}, list(t, b.File))
	require.Equal(t, []string{"sending tarball"}, b.Completed())
}

func TestTarOfSeveralPlatforms(t *testing.T) {
	b := exportertest.New(t, false)
	ref := b.Tree(nil, "", func(dir string) { require.NoError(t, os.WriteFile(dir+"/a", []byte("a\n"), 0o644)) })
	res := &exporter.Result{Refs: map[string]*cache.Ref{"linux/arm/v7": ref, "linux/amd64": nil}, Metadata: map[string][]byte{
		exporter.KeyPlatforms: []byte(`{"Platforms":[{"ID":"linux/arm/v7","Platform":{"os":"linux","architecture":"arm"}},{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}}]}`),
		exporter.KeyEpoch:     []byte("1767225600"),
	}}
	_, err := b.Export(tar.New(b.Sessions), nil, res, 1)
	require.NoError(t, err)
	require.Equal(t, []string{
		"5 755 0/0 0 2026-01-01T00:00:00Z linux_amd64/",
		"5 755 0/0 0 2026-01-01T00:00:00Z linux_arm_v7/",
		"0 644 0/0 2 2026-01-01T00:00:00Z linux_arm_v7/a",
	}, list(t, b.File))
}

func TestTarErrors(t *testing.T) {
	_, err := tar.New(nil).Resolve(map[string]string{"platform-split": "often"}, compat.Current)
	require.ErrorContains(t, err, "non-bool value specified for platform-split")
	_, err = tar.New(nil).Resolve(map[string]string{exporter.AttrEpoch: "x"}, compat.Current)
	require.ErrorContains(t, err, "invalid source-date-epoch")
}
