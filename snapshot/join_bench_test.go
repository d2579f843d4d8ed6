//go:build linux

package snapshot_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot"
)

// Fifty layers of a hundred files are joined, against cp -al of the same files; ratio is what one
// takes compared to the other.
func BenchmarkJoinOfFifty(b *testing.B) {
	root := b.TempDir()
	require.NoError(b, unix.Mount("tmpfs", root, "tmpfs", 0, ""))
	b.Cleanup(func() { require.NoError(b, unix.Unmount(root, unix.MNT_DETACH)) })
	store, err := snapshot.Open(b.Context(), root, snapshot.Overlay)
	require.NoError(b, err)
	defer store.Close()
	var layers []snapshot.Layer
	var plain []string
	for i := range 50 {
		name := fmt.Sprint("s", i)
		require.NoError(b, store.Prepare(b.Context(), name+".active", ""))
		dir, release, err := snapshot.MountTemp(store.Mountable(b.Context(), name+".active", false, nil))
		require.NoError(b, err)
		require.NoError(b, os.Mkdir(filepath.Join(dir, fmt.Sprint("d", i)), 0o755))
		for j := range 100 {
			require.NoError(b, os.WriteFile(filepath.Join(dir, fmt.Sprint("d", i), fmt.Sprint("f", j)), nil, 0o644))
		}
		plain = append(plain, dir+"/.")
		require.NoError(b, release())
		require.NoError(b, store.Commit(b.Context(), name, name+".active"))
		layers = append(layers, snapshot.Layer{Snapshot: name})
	}
	var ours, theirs time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		require.NoError(b, store.Join(b.Context(), fmt.Sprint("all", i), "", layers))
		ours += time.Since(began)
		to := filepath.Join(root, fmt.Sprint("to", i))
		require.NoError(b, os.Mkdir(to, 0o755))
		began = time.Now()
		out, err := exec.Command("cp", append([]string{"-al"}, append(plain, to)...)...).CombinedOutput()
		require.NoError(b, err, string(out))
		theirs += time.Since(began)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}
