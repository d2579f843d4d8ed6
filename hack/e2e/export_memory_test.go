package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// exportMemory is the most memory that a daemon may take for layers while it compresses and sends
// them, in bytes, whatever their size, form and number, and with any number of cores.
const exportMemory = 200 << 20

func TestExportsTakeBoundedMemory(t *testing.T) {
	extra := memoryOfExport(t, 384, 2, 8, "gzip", "zstd", "estargz")
	t.Logf("%d MiB", extra>>20)
	require.Less(t, extra, int64(exportMemory))
}

// What a daemon takes for layers that have some GiB together, more than when it does nothing.
func BenchmarkExportMemory(b *testing.B) {
	mebibytes := 6 << 10
	if text := os.Getenv("EXPORT_MEBIBYTES"); text != "" {
		var err error
		mebibytes, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	for _, forms := range [][]string{
		{"gzip"}, {"estargz"}, {"zstd"}, {"zstd,compression-level=8"}, {"zstd,compression-level=19"}, {"gzip", "zstd"},
	} {
		for _, layers := range []int{1, 2, 4} {
			for _, procs := range []int{2, 8} {
				b.Run(fmt.Sprintf("%s/%d_layers/%d_procs", strings.Join(forms, "_"), layers, procs), func(b *testing.B) {
					for b.Loop() {
						extra := memoryOfExport(b, mebibytes, layers, procs, forms...)
						b.ReportMetric(0, "ns/op")
						b.ReportMetric(float64(extra)/(1<<20), "MiB/extra")
						require.Less(b, extra, int64(exportMemory))
					}
				})
			}
		}
	}
}

// memoryOfExport returns what a daemon that has just started takes to export layers of its cache, in
// one output for each form.
func memoryOfExport(tb testing.TB, mebibytes, layers, procs int, forms ...string) int64 {
	tb.Helper()
	d := start(tb, harness.DaemonOptions{Env: []string{fmt.Sprint("GOMAXPROCS=", procs)}})
	const piece = 96 // MiB
	dir := mixedFiles(tb, tb.TempDir(), piece)
	lines := []string{"FROM busybox"}
	for i := range layers {
		lines = append(lines, fmt.Sprintf("RUN --mount=type=bind,target=/from for n in $(seq %d); do cp -r /from /copy%d-$n; done", mebibytes/layers/piece, i))
	}
	write(tb, filepath.Join(dir, "Dockerfile"), strings.Join(lines, "\n"))
	write(tb, filepath.Join(dir, ".dockerignore"), "Dockerfile\n")
	build := func(more ...string) { // may take longer than what hangs
		cmd := d.Command(tb.Context(), harness.DockerfileArgs(dir, more...)...)
		text, err := cmd.CombinedOutput()
		require.NoError(tb, err, string(text))
	}
	build()
	d.Restart(tb)
	d.MustBuildctl(tb, "debug", "info")
	before := memory(tb, d.Pid(), "VmRSS")
	var outputs []string
	out := tb.TempDir()
	for i, form := range forms {
		dest := filepath.Join(out, fmt.Sprint(i))
		require.NoError(tb, os.Symlink(os.DevNull, dest))
		outputs = append(outputs, "--output=type=oci,dest="+dest+",compression="+form)
	}
	build(outputs...)
	return peakMemory(tb, d.Pid()) - before
}
