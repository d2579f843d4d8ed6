package e2e_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestSoakAKilledDaemonStartsAtOnceAndKeepsItsCache(t *testing.T) {
	// In memory, where a start takes no longer for what others have yet to write to the disk.
	d := start(t, harness.DaemonOptions{Dir: tmpfs(t, "2g")})
	finished := dockerfile(t, "FROM busybox AS one", "RUN head -c 1000000 /dev/urandom > /one",
		"FROM busybox", "COPY --from=one /one /two", "RUN cat /two > /three")
	first := t.TempDir()
	d.Build(t, finished, toLocal(first))

	for round := range harness.Rounds(5, 100) {
		// Large layers, many small files, a pull, a context and a cache directory, all at once.
		busy := tree(t, map[string]string{
			"Dockerfile": fmt.Sprintf(`FROM busybox AS large
RUN echo %[1]d; for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/urandom > /large$i; done
RUN cat /large* > /all
FROM full AS small
USER root
RUN echo %[1]d; for i in $(seq 1 2000); do echo $i > /srv/small$i; done
FROM busybox
COPY . /context
COPY --from=large /all /all
COPY --from=small /srv /srv
RUN --mount=type=cache,target=/c echo %[1]d >> /c/log; cat /all > /c/all; sleep 0.2
`, round),
			"file": fmt.Sprint(round),
		})
		c := launchBuild(t, d, busy, "--output=type=oci,dest="+filepath.Join(t.TempDir(), "out.tar"))
		after(t, time.Duration(rand.Int64N(int64(2*time.Second)))) //nolint:gosec // when a crash comes is no secret
		d.Kill(t)
		c.waitWithin(t, 15*time.Second)

		began := time.Now()
		d.Start(t)
		require.Less(t, time.Since(began), 2*time.Second, "a start after a crash")
		again := t.TempDir()
		require.Empty(t, ran(d.Build(t, finished, toLocal(again))))
		require.Equal(t, read(t, first, "three"), read(t, again, "three"))
		d.RequireIdle(t)
		d.Build(t, busy)
		require.Empty(t, ran(d.Build(t, busy)))
	}
	requirePruned(t, d)
}

func TestADaemonKilledWhileIdleOrStartingStartsAgain(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := dockerfile(t, "FROM busybox", "RUN echo hello > /hello")
	d.Build(t, dir)
	d.Kill(t)
	d.Start(t)
	require.Empty(t, ran(d.Build(t, dir)))
	for range 3 {
		d.Kill(t)
		d.Start(t)
	}
	require.Empty(t, ran(d.Build(t, dir)))
}

// emptyRoot is what the state of a daemon without any records may hold besides its databases, which
// keep the size they had once: versions and ids.
const emptyRoot = 1 << 10

// requirePruned prunes all, records of builds too, and fails the test unless nothing is left, neither
// in the daemon's books nor on its disk: what a lease or a forgotten reference holds would be.
func requirePruned(t *testing.T, d *harness.Daemon) {
	t.Helper()
	d.RequireIdle(t)
	d.MustBuildctl(t, "prune", "--all")
	var records []any
	require.NoError(t, json.Unmarshal([]byte(d.MustBuildctl(t, "du", "--format=json").Stdout), &records))
	require.Empty(t, records)

	d.MustBuildctl(t, "prune-histories")
	eventually(t, 10*time.Second, func() error { // records are deleted from the disk a moment later
		var size int64
		var found []string
		err := filepath.WalkDir(d.Root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || filepath.Ext(path) == ".db" || entry.Name() == "reserve" {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			size += info.Size()
			found = append(found, fmt.Sprintf("%s: %d", path, info.Size()))
			return nil
		})
		if err == nil && size >= emptyRoot {
			err = fmt.Errorf("%d bytes are left: %q", size, found)
		}
		return err
	})
}

// A disk that damages pages of a database costs what that remembers, never the daemon.
func TestADaemonStartsWithDatabasesThatAreDamaged(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	context := dockerfile(t, "FROM busybox", "RUN echo hello > /hello")
	d.Build(t, context)
	d.Stop(t)
	databases := 0
	err := filepath.WalkDir(d.Root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".db" {
			return err
		}
		databases++
		content := []byte(read(t, path))
		for i := 2 * os.Getpagesize(); i < len(content); i++ {
			content[i] = byte(i * i >> 3)
		}
		require.NoError(t, os.WriteFile(path, content, 0o600))
		d.Start(t)
		require.Contains(t, d.Logs(), filepath.Base(path)+" is damaged, set aside as ")
		aside, err := filepath.Glob(path + ".damaged-*")
		require.NoError(t, err)
		require.Len(t, aside, 1)
		require.NoError(t, os.Remove(aside[0]))
		d.Build(t, context)
		d.Stop(t)
		d.Start(t)
		require.Empty(t, ran(d.Build(t, context)), "the cache works after %s", path)
		d.Stop(t)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 5, databases, "keys, records, content, snapshots and history")
	d.Start(t)
	requirePruned(t, d)
}
