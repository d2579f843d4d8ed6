package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// heapGrowth is how much more the daemon may keep in memory after many exports than after some.
const heapGrowth = 4 << 20

// Exports of every kind, to users with rights and without, some of which fail or are interrupted: the
// daemon keeps nothing of them in memory.
func TestSoakExportsLeaveNothing(t *testing.T) {
	s, tokens := private(t)
	d, plain := startWithRegistry(t, harness.DaemonOptions{Debug: true})
	out := t.TempDir()
	to := func(output string) []string {
		return []string{"--output=" + output + ",dest=" + filepath.Join(out, "x")}
	}
	push := func(host, name, more string) []string {
		return []string{
			"--output=type=image,push=true,name=" + host + "/" + name + more,
			"--registry-auth-tlscontext=host=" + s.Addr + ",ca=" + tokens.CA,
		}
	}
	epoch := func(round int) string { return fmt.Sprint("--opt=build-arg:SOURCE_DATE_EPOCH=", 1_000_000_000+round) }
	kinds := []struct {
		name string
		args func(round int) []string
		code int
	}{
		{"oci gzip", func(int) []string { return to("type=oci") }, 0},
		{"oci zstd", func(int) []string { return to("type=oci,compression=zstd") }, 0},
		{"oci estargz, all layers", func(int) []string { return to("type=oci,compression=estargz,force-compression=true") }, 0},
		{"docker uncompressed", func(int) []string { return to("type=docker,name=x,compression=uncompressed") }, 0},
		{"rewritten times", func(n int) []string { return append(to("type=oci,rewrite-timestamp=true"), epoch(n)) }, 0},
		{"push", func(n int) []string { return push(plain.Host, fmt.Sprintf("soak/r%d:1", n%7), "") }, 0},
		{"push by ann", func(n int) []string { return push(s.Addr, fmt.Sprintf("ann/r%d:%d", n%5, n), "") }, 0},
		{"push to a place of bob", func(int) []string { return push(s.Addr, "bob/r:1", "") }, 1},
		{"push to nobody", func(int) []string { return push("127.0.0.1:1", "r:1", "") }, 1},
		{"local", func(int) []string { return []string{toLocal(filepath.Join(out, "local"))} }, 0},
		{"several", func(n int) []string {
			return append(push(s.Addr, fmt.Sprintf("ann/s%d:1", n), ",compression=zstd"), to("type=tar")...)
		}, 0},
		{"interrupted", func(n int) []string { return push(plain.Host, fmt.Sprintf("soak/i%d:1", n), "") }, -1},
	}
	rounds := harness.Rounds(2, 17)
	var kept []int64
	var goroutines int
	for round := range rounds {
		for i, k := range kinds {
			n := round*len(kinds) + i
			dir := dockerfile(t, "FROM busybox", fmt.Sprintf("RUN head -c 300000 /dev/urandom > /noise; yes %d | head -n 100000 > /text", n), "COPY Dockerfile /")
			c := prepare(t, d, harness.DockerfileArgs(dir, k.args(n)...)...)
			c.login(t, s.Addr, "ann")
			c.start(t)
			if k.code < 0 {
				c.await(t, "exporting to image")
				c.signal(t, syscall.SIGINT)
				c.wait(t)
				continue
			}
			r := c.wait(t)
			require.Equal(t, k.code, r.Code, "%s: %s", k.name, r.Stderr)
		}
		if round%4 == 3 {
			d.MustBuildctl(t, "prune", "--all")
		}
		d.RequireIdle(t)
		kept = append(kept, int64(d.Heap(t)))
		if round == 0 {
			goroutines = d.Goroutines(t)
		}
		t.Logf("%d exports: %d KiB in use, %d MiB resident, %d goroutines", (round+1)*len(kinds), kept[round]>>10,
			memory(t, d.Pid(), "VmRSS")>>20, d.Goroutines(t))
	}
	requireGoroutines(t, d, goroutines, 40e9)
	if quarter := rounds / 4; quarter > 0 {
		before, after := mean(kept[quarter:2*quarter]), mean(kept[rounds-quarter:])
		require.Less(t, after-before, int64(heapGrowth), "bytes in use: %v", kept)
	}
	require.NoError(t, os.RemoveAll(out))
	requirePruned(t, d)
}
