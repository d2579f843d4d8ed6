package e2e_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// randomImage is a Dockerfile of three layers of random files, the largest of a MiB.
func randomImage(t *testing.T) (dir string, files map[string]string) {
	t.Helper()
	files = map[string]string{}
	lines := []string{"FROM scratch"}
	for i, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		file := fmt.Sprintf("file%d", i)
		files[file] = string(data)
		lines = append(lines, fmt.Sprintf("COPY %s /", file))
	}
	dir = tree(t, files)
	write(t, filepath.Join(dir, "Dockerfile"), strings.Join(lines, "\n"))
	return dir, files
}

func toRegistry(ref string) string { return "--output=type=image,name=" + ref + ",push=true" }

// requireValid fails unless the registry has an image with all its blobs as they should be.
func requireValid(t *testing.T, reference string) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	image, err := remote.Image(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Image(image, validate.Fast))
}

// Of the requests of each push and pull one in twenty fails in some way. None of the builds does.
func TestSoakARegistryThatFailsNowAndThenFailsNoBuild(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, s.Addr)
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	pushes, pulls := 0, 0
	rounds := harness.Rounds(4, 50)
	for round := range rounds {
		dir, files := randomImage(t)
		ref := fmt.Sprintf("/soak/r%d:1", round)
		p.SetFault(registrytest.Some(uint64(round), 20))
		d.Build(t, dir, toRegistry(p.Addr+ref))
		pushes += len(p.Requests())
		requireValid(t, s.Addr+ref)

		d.MustBuildctl(t, "prune", "--all")
		to := t.TempDir()
		d.Build(t, dockerfile(t, "FROM "+p.Addr+ref), toLocal(to))
		pulls += len(p.Requests())
		for file, data := range files {
			require.Equal(t, data, read(t, to, file), "round %d", round)
		}
	}
	t.Logf("%d rounds: %d requests of pushes, %d of pulls, %d spoiled", rounds, pushes, pulls, p.Injected())
	require.Positive(t, p.Injected())
	p.SetFault(nil)
	requirePruned(t, d)
}

func TestAPushOrPullThatIsBrokenOffIsDoneByTheNext(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, s.Addr)
	d := harness.StartDaemon(t, harness.DaemonOptions{Debug: true})
	// hang makes requests of a method for blobs hang, and returns where they tell that they do.
	hang := func(method string) chan struct{} {
		begun := make(chan struct{}, 64)
		p.SetFault(func(r *http.Request) registrytest.Fault {
			if r.Method == method && strings.Contains(r.URL.Path, "/blobs/") {
				begun <- struct{}{}
				return registrytest.Hang
			}
			return registrytest.None
		})
		return begun
	}
	interrupt := func(t *testing.T, c *client) {
		c.signal(t, syscall.SIGINT)
		require.Equal(t, 1, c.waitWithin(t, 15*time.Second).Code)
		d.RequireIdle(t)
	}
	kill := func(t *testing.T, c *client) {
		d.Kill(t)
		require.NotZero(t, c.waitWithin(t, 30*time.Second).Code)
		d.Start(t)
	}
	for how, end := range map[string]func(*testing.T, *client){"client is gone": interrupt, "daemon is killed": kill} {
		t.Run("a push whose "+how, func(t *testing.T) {
			dir, _ := randomImage(t)
			ref := "/broken/" + strings.Fields(how)[0] + ":1"
			begun := hang(http.MethodPut)
			c := launchBuild(t, d, dir, toRegistry(p.Addr+ref))
			<-begun
			end(t, c)
			p.SetFault(nil)
			d.Build(t, dir, toRegistry(p.Addr+ref))
			requireValid(t, s.Addr+ref)
		})
		t.Run("a pull whose "+how, func(t *testing.T) {
			dir, files := randomImage(t)
			ref := "/whole/" + strings.Fields(how)[0] + ":1"
			d.Build(t, dir, toRegistry(p.Addr+ref))
			d.MustBuildctl(t, "prune", "--all")
			before := d.Goroutines(t)
			begun := hang(http.MethodGet)
			to := t.TempDir()
			from := dockerfile(t, "FROM "+p.Addr+ref)
			c := launchBuild(t, d, from, toLocal(to))
			<-begun
			end(t, c)
			p.SetFault(nil)
			d.Build(t, from, toLocal(to))
			for file, data := range files {
				require.Equal(t, data, read(t, to, file))
			}
			requireGoroutines(t, d, before, 30*time.Second)
		})
	}
	requests := p.Requests()
	require.True(t, slices.ContainsFunc(requests, func(r string) bool { return strings.HasPrefix(r, "PUT ") }))
	requirePruned(t, d)
}
