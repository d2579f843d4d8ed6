package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// record is what du tells of a record.
type record struct {
	ID          string
	Mutable     bool
	InUse       bool
	Size        int64
	UsageCount  int
	Parents     []string
	Description string
	RecordType  string
}

// records returns what is stored, of those that match.
func records(t *testing.T, d *harness.Daemon, flags ...string) []record {
	t.Helper()
	var all []record
	require.NoError(t, json.Unmarshal([]byte(d.MustBuildctl(t, append([]string{"du", "--format=json"}, flags...)...).Stdout), &all))
	return all
}

func total(rs []record) (size int64) {
	for _, r := range rs {
		size += r.Size
	}
	return size
}

// descriptions returns what the records say of themselves, for those that contain a text.
func descriptions(rs []record, text string) []string {
	found := []string{}
	for _, r := range rs {
		if strings.Contains(r.Description, text) {
			found = append(found, r.Description)
		}
	}
	return found
}

// megabytes builds images, one after the other, each with a step that writes so many megabytes.
func megabytes(t *testing.T, d *harness.Daemon, sizes ...int) {
	t.Helper()
	for i, size := range sizes {
		d.Build(t, dockerfile(t, "FROM busybox", fmt.Sprintf("RUN head -c %d000000 /dev/urandom > /made%d", size, i)))
	}
}

func TestEveryFlagOfPruneAndDuDoesWhatItSays(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{})
	d.Build(t, dockerfile(t, "FROM busybox", "RUN --mount=type=cache,target=/c echo > /c/x"))
	megabytes(t, d, 4, 5, 6)
	all := records(t, d)
	require.Len(t, descriptions(all, "/made"), 3)

	t.Run("du", func(t *testing.T) {
		mounts := records(t, d, "--filter=type==exec.cachemount")
		require.Len(t, mounts, 1)
		require.True(t, mounts[0].Mutable)
		require.Len(t, records(t, d, "-f", "type==exec.cachemount", "-f", "description~=made1"), 2, "any of the filters")
		require.Empty(t, records(t, d, "--filter=type==exec.cachemount,description~=made1"), "all parts of one")
		require.Len(t, records(t, d, "--filter=id=="+mounts[0].ID), 1)
		require.NotContains(t, d.MustBuildctl(t, "du", "--filter=mutable").Stdout, "Total:")
		require.Contains(t, d.MustBuildctl(t, "du").Stdout, "Total:")
		for _, flag := range []string{"-v", "--verbose"} {
			require.Contains(t, d.MustBuildctl(t, "du", flag).Stdout, "Usage count:\t")
		}
		require.Equal(t, fmt.Sprint(len(all), "\n"), d.MustBuildctl(t, "du", "--verbose", "--format={{len .}}").Stdout, "a format goes before verbose")
		bad := d.Buildctl(t, "du", "--filter=type===")
		require.Equal(t, 1, bad.Code)
		require.Contains(t, bad.Stderr, "failed to parse diskusage filters")
		require.Equal(t, 1, d.Buildctl(t, "du", "--format={{.Nothing").Code)
	})
	t.Run("prune removes nothing that the flags keep", func(t *testing.T) {
		for _, flags := range [][]string{
			{"--keep-duration=1h"},
			{"--keep-storage=1000"},
			{"--keep-storage-min=1000", "--keep-storage=1"},
			{"--free-storage=0.001"},
			{"--filter=description~=nothing"},
			{"--filter=type==exec.cachemount", "--keep-duration=1h"},
		} {
			require.Regexp(t, `^Total:\s+0B\n$`, d.MustBuildctl(t, append([]string{"prune"}, flags...)...).Stdout, flags)
		}
		require.Len(t, records(t, d), len(all))
		for _, flags := range [][]string{{"--keep-storage=-1"}, {"--filter=type==="}, {"--keep-duration=soon"}} {
			require.Equal(t, 1, d.Buildctl(t, append([]string{"prune"}, flags...)...).Code, flags)
		}
	})
	t.Run("prune by a filter", func(t *testing.T) {
		out := d.MustBuildctl(t, "prune", "--filter=description~=made0", "--format={{.ID}} {{.Size}}").Stdout
		require.Equal(t, 1, strings.Count(out, "\n"), "once for each record, without a total: %s", out)
		require.Len(t, descriptions(records(t, d), "/made"), 2)
	})
	t.Run("prune to a size, what was used last stays", func(t *testing.T) {
		out := d.MustBuildctl(t, "prune", "--keep-storage=11", "--verbose").Stdout
		require.Contains(t, out, "made1")
		require.Regexp(t, `Total:\s+\d`, out)
		left := records(t, d)
		require.Len(t, descriptions(left, "made2"), 1)
		require.Empty(t, descriptions(left, "made1"))
		require.LessOrEqual(t, total(left), int64(11e6))
	})
	t.Run("prune until there is space", func(t *testing.T) {
		// More than any disk has.
		d.MustBuildctl(t, "prune", "--free-storage=1e12", "--keep-storage-min=0.001")
		require.Empty(t, descriptions(records(t, d), "made2"))
	})
	t.Run("prune leaves what belongs to the daemon, but for all", func(t *testing.T) {
		d.MustBuildctl(t, "prune", "--all")
		require.Empty(t, records(t, d))
	})
}

func TestTheCacheIsKeptToItsPoliciesByItself(t *testing.T) {
	t.Parallel()
	const limit = 12e6
	for name, config := range map[string]string{
		"limits of the default policies": "[worker.oci]\ngc = true\nreservedSpace = \"1MB\"\nmaxUsedSpace = \"12MB\"\nminFreeSpace = 0\n",
		"a policy of its own":            "[worker.oci]\ngc = true\n[[worker.oci.gcpolicy]]\nall = true\nmaxUsedSpace = \"12MB\"\n",
		"the space that is to be free":   "[worker.oci]\ngc = true\nreservedSpace = \"12MB\"\nminFreeSpace = \"100%\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, harness.DaemonOptions{Config: config})
			megabytes(t, d, 5, 6, 7)
			// Between two collections is a minute; the first comes soon after the start.
			d.Restart(t)
			timeout := time.After(time.Minute)
			for tick := time.Tick(200 * time.Millisecond); ; {
				left := records(t, d)
				if total(left) <= limit && strings.Contains(d.Logs(), "garbage collection removed") {
					require.Len(t, descriptions(left, "made2"), 1, "what was used last stays")
					break
				}
				select {
				case <-tick:
				case <-timeout:
					t.Fatalf("%d bytes are still there", total(left))
				}
			}
		})
	}
}
