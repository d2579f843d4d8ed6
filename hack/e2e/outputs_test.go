package e2e_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// crane runs a tool that knows images in registries, in the version that hack/tools pins.
func crane(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "go", append([]string{"tool", "-modfile=../tools/go.mod", "crane"}, args...)...)
}

// pulled returns the image of a reference in a registry, and fails the test unless every blob of it
// is what its digest says. It reads gzip only.
func pulled(t *testing.T, reference string) v1.Image {
	t.Helper()
	crane(t, "validate", "--remote="+reference)
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	image, err := remote.Image(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Image(image))
	return image
}

// pulledIndex is pulled for an index of several platforms.
func pulledIndex(t *testing.T, reference string) v1.ImageIndex {
	t.Helper()
	crane(t, "validate", "--remote="+reference)
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	index, err := remote.Index(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Index(index))
	return index
}

// exportStep is the line that begins the step of an output.
var exportStep = regexp.MustCompile(`(?m)^#\d+ exporting to .*$`)

func TestSeveralOutputsOfOneBuild(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	dir := application(t)
	out := t.TempDir()
	path := func(name string) string { return filepath.Join(out, name) }

	result := d.Build(t, dir,
		"--output=type=oci,tar=false,dest="+path("layout"),
		"--output=type=image,name="+registry.Host+"/out/a:1,push=true",
		"--output=type=image,name="+registry.Host+"/out/b:2,push=true,compression=gzip,compression-level=9,force-compression=true",
		"--output=type=oci,dest="+path("1.tar")+",name=example.org/one:1",
		"--output=type=oci,dest="+path("2.tar")+",name=example.org/two:2,compression=uncompressed,force-compression=true",
		"--output=type=docker,dest="+path("docker.tar")+",name=example.org/three:3",
		"--output=type=local,dest="+path("files"),
		"--output=type=local,dest="+path("again"),
		"--output=type=tar,dest="+path("files.tar"),
		"--metadata-file="+path("meta.json"))
	steps := exportStep.FindAllString(result.Stderr, -1)
	slices.Sort(steps)
	require.Len(t, slices.Compact(steps), 9, "each output has a step of its own:\n%s", result.Stderr)

	requireApplication(t, pulled(t, registry.Host+"/out/a:1"))
	requireApplication(t, pulled(t, registry.Host+"/out/b:2"))
	command(t, "skopeo", "inspect", "oci-archive:"+path("1.tar")+":1")
	command(t, "skopeo", "inspect", "oci-archive:"+path("2.tar")+":2")
	image, err := tarball.ImageFromPath(path("docker.tar"), nil)
	require.NoError(t, err)
	requireApplication(t, image)
	requireApplication(t, readLayout(t, path("layout")))
	require.Equal(t, "contents\n", read(t, path("files/app/file")))
	require.Equal(t, "contents\n", read(t, path("again/app/file")))
	require.FileExists(t, path("files.tar"))

	digest, err := readLayout(t, path("layout")).Digest()
	require.NoError(t, err)
	m := readMetadata(t, path("meta.json"))
	require.Equal(t, digest.String(), m.Digest, "that of the layout wins")
	require.Equal(t, "example.org/three:3", m.Name, "the last that has a name wins")
	d.RequireIdle(t)
}

func TestNothingIsPushedWhenAnotherOutputFails(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	result := d.Buildctl(t, harness.DockerfileArgs(application(t),
		"--output=type=image,name="+registry.Host+"/out/a:1,push=true",
		"--output=type=oci,annotation-index.a=b,dest="+filepath.Join(t.TempDir(), "out.tar"))...)
	require.Equal(t, 1, result.Code)
	require.Contains(t, result.Stderr, "index annotations not supported for single platform export")
	ref, err := name.ParseReference(registry.Host + "/out/a:1")
	require.NoError(t, err)
	_, err = remote.Head(ref)
	require.Error(t, err)
	d.RequireIdle(t)
}

func TestImagesOfSeveralPlatforms(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM busybox\nARG TARGETPLATFORM\nCOPY file /\nLABEL for=$TARGETPLATFORM\n",
		"file":       "contents\n",
	})
	reference := registry.Host + "/out/multi:1"
	out := filepath.Join(t.TempDir(), "layout")
	d.Build(t, dir, "--opt=platform=linux/amd64,linux/arm64,linux/arm/v7",
		"--output=type=image,push=true,name="+reference, "--output=type=oci,tar=false,dest="+out)

	index := pulledIndex(t, reference)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
		image, err := index.Image(m.Digest)
		require.NoError(t, err)
		config, err := image.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, m.Platform.Architecture, config.Architecture)
		require.Equal(t, m.Platform.String(), config.Config.Labels["for"])
	}
	require.Equal(t, []string{"linux/amd64", "linux/arm64", "linux/arm/v7"}, platforms)

	local, err := layout.ImageIndexFromPath(out)
	require.NoError(t, err)
	top, err := local.IndexManifest()
	require.NoError(t, err)
	require.Len(t, top.Manifests, 1)
	inner, err := local.ImageIndex(top.Manifests[0].Digest)
	require.NoError(t, err)
	require.NoError(t, validate.Index(inner))
	want, err := index.Digest()
	require.NoError(t, err)
	require.Equal(t, want, top.Manifests[0].Digest)

	command(t, "skopeo", "copy", "--all", "--src-tls-verify=false", "docker://"+reference, "oci:"+filepath.Join(t.TempDir(), "copy")+":1")

	result := d.Buildctl(t, harness.DockerfileArgs(dir, "--opt=platform=linux/amd64,linux/arm64",
		"--output=type=docker,dest="+filepath.Join(t.TempDir(), "docker.tar"))...)
	require.Equal(t, 1, result.Code)
	require.Contains(t, result.Stderr, "docker exporter does not currently support exporting manifest lists")
	d.RequireIdle(t)
}

func TestAPushedImageRunsElsewhere(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	reference := registry.Host + "/out/app:1"
	d.Build(t, application(t), "--output=type=image,push=true,name="+reference)
	pulled(t, reference)

	temp := t.TempDir()
	bundle := filepath.Join(temp, "bundle")
	command(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+reference, "oci:"+filepath.Join(temp, "oci")+":1")
	command(t, "umoci", "unpack", "--image="+filepath.Join(temp, "oci")+":1", bundle)
	spec := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(read(t, bundle, "config.json")), &spec))
	spec["process"].(map[string]any)["terminal"] = false
	spec["linux"].(map[string]any)["cgroupsPath"] = "/umoci-" + filepath.Base(filepath.Dir(temp))
	data, err := json.Marshal(spec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600))
	require.Equal(t, "contents\n", command(t, "runc", "--root="+filepath.Join(temp, "runc"), "run", "--bundle="+bundle, "umoci-app"))
}

// containerd is a daemon of that name with state of its own.
type containerd struct{ socket string }

func startContainerd(t *testing.T) *containerd {
	t.Helper()
	dir := t.TempDir()
	c := &containerd{socket: filepath.Join(dir, "c.sock")}
	config := filepath.Join(dir, "config.toml")
	write(t, config, `version = 2
root = "`+dir+`/root"
state = "`+dir+`/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "`+c.socket+`"
[ttrpc]
address = "`+c.socket+`.ttrpc"
`)
	cmd := exec.Command("containerd", "--config="+config)
	log := newOutput()
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unix", c.socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 30*time.Second, 20*time.Millisecond, "containerd does not start")
	return c
}

func (c *containerd) ctr(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "ctr", append([]string{"--address=" + c.socket}, args...)...)
}

func TestAnArchiveIsLoadedByContainerd(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	c := startContainerd(t)
	dir := application(t)
	for _, kind := range []string{"docker", "oci"} {
		t.Run(kind, func(t *testing.T) {
			temp := t.TempDir()
			out, meta := filepath.Join(temp, "out.tar"), filepath.Join(temp, "meta.json")
			reference := "example.org/" + kind + ":1"
			d.Build(t, dir, "--output=type="+kind+",name="+reference+",dest="+out, "--metadata-file="+meta)
			c.ctr(t, "images", "import", "--snapshotter=native", out)
			listed := c.ctr(t, "images", "list", "name=="+reference)
			require.Contains(t, listed, readMetadata(t, meta).Digest)
			require.Contains(t, listed, "linux/amd64")
			mounted := filepath.Join(temp, "mounted")
			require.NoError(t, os.Mkdir(mounted, 0o755))
			c.ctr(t, "images", "mount", "--snapshotter=native", reference, mounted)
			require.Equal(t, "contents\n", read(t, mounted, "app/file"))
			c.ctr(t, "images", "unmount", "--snapshotter=native", "--rm", mounted)
		})
	}
}

func TestTwoDaemonsMakeOneImage(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM busybox\nWORKDIR /app\nCOPY file .\nRUN mkdir d && echo made > d/made && seq 400000 > d/much && ln d/made hard && rm /etc/shadow\nLABEL a=b\n",
		"file":       "contents\n",
	})
	forms := []string{
		"compression=gzip",
		"compression=gzip,compression-level=9",
		"compression=estargz",
		"compression=zstd",
		"compression=zstd,compression-level=19",
		"compression=uncompressed",
	}
	digests := map[string]string{}
	for i, cores := range []string{"1", "8"} {
		d := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry, Env: []string{"GOMAXPROCS=" + cores}})
		for _, attrs := range forms {
			temp := t.TempDir()
			out, meta := filepath.Join(temp, "layout"), filepath.Join(temp, "meta.json")
			d.Build(t, dir, "--opt=build-arg:SOURCE_DATE_EPOCH=1700000000", "--metadata-file="+meta,
				"--output=type=oci,tar=false,rewrite-timestamp=true,force-compression=true,dest="+out+","+attrs)
			digest := readMetadata(t, meta).Digest
			if i == 0 {
				require.NotContains(t, digests, digest, "each form is another image")
				requireWhole(t, readLayout(t, out))
				digests[attrs] = digest
				continue
			}
			require.Equal(t, digests[attrs], digest, attrs)
		}
		d.Stop(t)
		// Nor does it matter what the daemon made before.
		slices.Reverse(forms)
	}
}
