package harness

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/openbuildkit/buildkit/hack/testimage"
)

// Registry is a running docker-registry that speaks plain HTTP and keeps its blobs in a folder of
// the test.
type Registry struct {
	// Host is its address as it stands in references, such as "127.0.0.1:40123".
	Host string
	// Dir is where it keeps its state.
	Dir string

	process *process
}

// listening is what docker-registry logs once it can be spoken to.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// StartRegistry starts a registry on a free port. It ends with the test.
func StartRegistry(tb testing.TB) *Registry {
	tb.Helper()
	dir := tb.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {accesslog: {disabled: true}}\n"+
		"storage: {delete: {enabled: true}, filesystem: {rootdirectory: %s}}\nhttp: {addr: '127.0.0.1:0'}\n", filepath.Join(dir, "state"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	log := newLogBuffer()
	p, err := startProcess("docker-registry", exec.Command("docker-registry", "serve", config), log)
	if err != nil {
		tb.Fatal(err)
	}
	r := &Registry{Dir: filepath.Join(dir, "state"), process: p}
	tb.Cleanup(func() { r.Stop(tb) })

	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	for {
		text, changed := log.snapshot()
		if m := listening.FindStringSubmatch(text); m != nil {
			r.Host = m[1]
			return r
		}
		select {
		case <-changed:
		case <-p.done:
			tb.Fatalf("docker-registry ended: %v\n%s", p.err, log)
		case <-timer.C:
			tb.Fatalf("docker-registry did not start\n%s", log)
		}
	}
}

// Stop ends the registry; for tests in which it goes away.
func (r *Registry) Stop(tb testing.TB) {
	tb.Helper()
	r.process.kill()
}

// Push sends an image or an index; repository is such as "library/busybox:latest". It returns the
// whole reference.
func (r *Registry) Push(tb testing.TB, repository string, what remote.Taggable) string {
	tb.Helper()
	reference := r.Host + "/" + repository
	if err := testimage.Push(tb.Context(), reference, what); err != nil {
		tb.Fatal(err)
	}
	return reference
}

// PushBusybox sends all images that are made of busybox, see testimage.PushAll. A daemon with this
// registry finds them as busybox, full, onbuild and empty.
func (r *Registry) PushBusybox(tb testing.TB) {
	tb.Helper()
	if err := testimage.PushAll(tb.Context(), r.Host); err != nil {
		tb.Fatal(err)
	}
}

// PushPlatforms sends a busybox that is an index of testimage.Platforms, each with programs of its
// own, as platforms. The first call in a source tree makes it, which takes some seconds.
func (r *Registry) PushPlatforms(tb testing.TB) {
	tb.Helper()
	index, err := testimage.Index(func(p v1.Platform) (v1.Image, error) {
		return testimage.ForeignBusybox(tb.Context(), filepath.Join(CacheDir(tb), "testimage"), p)
	}, testimage.Platforms()...)
	if err != nil {
		tb.Fatal(err)
	}
	r.Push(tb, "library/platforms:latest", index)
}

// PushDebian sends a Debian with a C compiler as debian, and returns it. The first call in a source
// tree makes it, which takes a minute or two.
func (r *Registry) PushDebian(tb testing.TB) v1.Image {
	tb.Helper()
	image, err := testimage.Debian(tb.Context(), filepath.Join(CacheDir(tb), "testimage"))
	if err != nil {
		tb.Fatal(err)
	}
	r.Push(tb, "library/debian:latest", image)
	return image
}

// PushGo sends a Debian with the Go toolchain of the test as golang, and what PushDebian does.
func (r *Registry) PushGo(tb testing.TB) {
	tb.Helper()
	image, err := testimage.Go(r.PushDebian(tb), goEnv(tb, "GOROOT"))
	if err != nil {
		tb.Fatal(err)
	}
	r.Push(tb, "library/golang:latest", image)
}

// goEnv returns a setting of the go command in the source tree.
func goEnv(tb testing.TB, name string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "go", "env", name)
	cmd.Dir = Root(tb)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// ServeModules serves the modules that the source tree needs, as a proxy for the go command does,
// and returns the address. It ends with the test.
func ServeModules(tb testing.TB) string {
	tb.Helper()
	download := exec.CommandContext(tb.Context(), "go", "mod", "download")
	download.Dir = Root(tb)
	if out, err := download.CombinedOutput(); err != nil {
		tb.Fatalf("go mod download: %v\n%s", err, out)
	}
	// The module cache keeps what it downloaded in the form of the protocol.
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(goEnv(tb, "GOMODCACHE"), "cache", "download"))))
	tb.Cleanup(server.Close)
	return server.URL
}
