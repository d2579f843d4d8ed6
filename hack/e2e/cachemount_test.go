package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// meet is a shell function that returns once the build called $other is at the same point; both
// have a cache directory at /meet.
const meet = `meet() { touch /meet/$me; i=0; until [ -e /meet/$other ]; do i=$((i+1)); [ $i -lt 300 ] || exit 1; sleep 0.1; done; }`

// both runs a Dockerfile as two builds at once, which know each other's names.
func both(t *testing.T, d *harness.Daemon, dir string) {
	t.Helper()
	a := launchBuild(t, d, dir, "--opt=build-arg:me=a", "--opt=build-arg:other=b")
	b := launchBuild(t, d, dir, "--opt=build-arg:me=b", "--opt=build-arg:other=a")
	for _, c := range []*client{a, b} {
		result := c.wait(t)
		require.Zero(t, result.Code, result.Stderr)
	}
}

func TestCacheMountsAreSharedAsTheySay(t *testing.T) {
	d := start(t, harness.DaemonOptions{})

	t.Run("a shared one is seen by two builds at once", func(t *testing.T) {
		both(t, d, dockerfile(t, "FROM busybox", "ARG me", "ARG other",
			"RUN --mount=type=cache,id=shared,target=/meet "+meet+"; meet"))
	})
	t.Run("a private one is seen by one build, and by the next", func(t *testing.T) {
		both(t, d, dockerfile(t, "FROM busybox", "ARG me", "ARG other",
			"RUN --mount=type=cache,id=private,target=/meet --mount=type=cache,id=own,sharing=private,target=/own "+
				meet+"; mkdir /own/taken && touch /own/used && meet && rmdir /own/taken"))
		d.Build(t, dockerfile(t, "FROM busybox", "RUN --mount=type=cache,id=own,sharing=private,target=/own test -e /own/used"))
	})
	t.Run("a locked one is seen by one build after the other", func(t *testing.T) {
		dir := dockerfile(t, "FROM busybox", "ARG me",
			"RUN --mount=type=cache,id=locked,sharing=locked,target=/c : $me; mkdir /c/taken && sleep 0.3 && rmdir /c/taken")
		var clients []*client
		for _, me := range []string{"a", "b", "c", "d"} {
			clients = append(clients, launchBuild(t, d, dir, "--opt=build-arg:me="+me))
		}
		for _, c := range clients {
			result := c.wait(t)
			require.Zero(t, result.Code, result.Stderr)
		}
	})
	t.Run("one begins with what its source holds", func(t *testing.T) {
		d.Build(t, dockerfile(t, "FROM busybox AS seed", "RUN mkdir /s && echo seed > /s/seed",
			"FROM busybox", "RUN --mount=type=cache,id=seeded,from=seed,source=/s,target=/c grep seed /c/seed"))
	})
	t.Run("one outlives builds and restarts until no-cache empties it", func(t *testing.T) {
		dir := dockerfile(t, "FROM busybox", "ARG lines",
			`RUN --mount=type=cache,id=kept,target=/c echo line >> /c/log; [ "$(wc -l < /c/log)" = "$lines" ]`)
		d.Build(t, dir, "--opt=build-arg:lines=1")
		d.Build(t, dir, "--opt=build-arg:lines=2")
		d.Restart(t)
		d.Build(t, dir, "--opt=build-arg:lines=3")
		require.Empty(t, ran(d.Build(t, dir, "--opt=build-arg:lines=3")))
		d.Build(t, dir, "--no-cache", "--opt=build-arg:lines=1")
	})
	t.Run("what is in one never decides on a cache hit", func(t *testing.T) {
		dir := dockerfile(t, "FROM busybox", "RUN --mount=type=cache,id=hit,target=/c cat /c/* > /seen; date > /c/date")
		d.Build(t, dir)
		require.Empty(t, ran(d.Build(t, dir)))
	})
	d.RequireIdle(t)
}
