package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// mixedFiles writes files of some MiB each, a third of which do not compress.
func mixedFiles(tb testing.TB, dir string, mebibytes int) string {
	tb.Helper()
	require.NoError(tb, os.MkdirAll(dir, 0o755))
	source := rand.NewChaCha8([32]byte{1})
	random := rand.New(source)
	words := strings.Fields("the quick brown fox jumps over lazy dogs func return error string packet layer")
	for at := 0; at < mebibytes; at += 4 {
		data := make([]byte, 4<<20)
		_, _ = source.Read(data) // never fails
		if at/4%3 > 0 {
			data = data[:0]
			for len(data) < 4<<20 {
				data = fmt.Append(data, words[random.IntN(len(words))], random.IntN(1000), " ")
			}
		}
		require.NoError(tb, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%05d", at)), data, 0o644))
	}
	return dir
}

// used returns the CPU time of the processes that were waited for, and of another one.
func used(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	var u unix.Rusage
	require.NoError(tb, unix.Getrusage(unix.RUSAGE_CHILDREN, &u))
	stat := read(tb, fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var user, system int64
	_, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	require.NoError(tb, err)
	const tick = time.Second / 100 // USER_HZ
	return time.Duration(u.Utime.Nano()+u.Stime.Nano()) + time.Duration(user+system)*tick
}

// The export of a large layer against the tools that compress on all cores, in time, CPU time, size
// and memory.
func BenchmarkExportLargeLayer(b *testing.B) {
	for _, mebibytes := range []int{256, 2048} {
		for _, tc := range []struct{ name, attributes, plain string }{
			{"gzip6", ",compression=gzip,compression-level=6", "pigz -6"},
			{"zstd", ",compression=zstd", "zstd -q -T0"},
		} {
			b.Run(fmt.Sprintf("%s/%dMiB", tc.name, mebibytes), func(b *testing.B) {
				benchmarkLargeLayer(b, mebibytes, tc.attributes, tc.plain)
			})
		}
	}
}

func benchmarkLargeLayer(b *testing.B, mebibytes int, attributes, plain string) {
	dir := tmpfs(b, "16g")
	d := harness.StartDaemon(b, harness.DaemonOptions{Dir: dir})
	source, target := mixedFiles(b, filepath.Join(dir, "source"), mebibytes), filepath.Join(dir, "target")
	var cpuOurs, cpuPlain time.Duration
	var ours, theirs int64
	round := 0
	before := memory(b, d.Pid(), "VmHWM")
	counted := func(sum *time.Duration, work func() time.Duration) time.Duration {
		began := used(b, d.Pid())
		took := work()
		*sum += used(b, d.Pid()) - began
		return took
	}
	pair(b, func() time.Duration {
		round++
		prune(b, d)
		layer := llb.Copy(llb.Local("context"), "/", "/").Mkfile("/round", 0o644, []byte(fmt.Sprint(round)))
		definition := marshal(b, llb.Scratch().File(layer))
		requireSolved(b, solve(b, d, definition, "--local=context="+source))
		took := counted(&cpuOurs, func() time.Duration {
			return timed(func() {
				requireSolved(b, solve(b, d, definition, "--local=context="+source, "--output=type=oci,dest="+target+attributes))
			})
		})
		ours = size(b, target)
		return took
	}, func() time.Duration {
		took := counted(&cpuPlain, func() time.Duration {
			return shell(b, `tar -C "$1" -c . | `+plain+` > "$2"`, source, target)
		})
		theirs = size(b, target)
		return took
	})
	b.ReportMetric(float64(cpuOurs)/float64(cpuPlain), "cpu-ratio")
	b.ReportMetric(float64(ours)/float64(theirs), "size-ratio")
	b.ReportMetric(float64(memory(b, d.Pid(), "VmHWM")-before)/(1<<20), "MiB/peak")
}

func size(tb testing.TB, file string) int64 {
	tb.Helper()
	info, err := os.Stat(file)
	require.NoError(tb, err)
	return info.Size()
}
