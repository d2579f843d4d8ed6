package testimage

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Host is the platform that this program runs on.
func Host() v1.Platform {
	return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// spec is what makes an image: layers as tar streams, lowest first, a configuration, and whether
// the media types are Docker's or, as usual, OCI's.
type spec struct {
	platform v1.Platform
	author   string
	layers   [][]byte
	config   v1.Config
	docker   bool
}

func (s spec) image() (v1.Image, error) {
	manifestType, configType, layerType := types.OCIManifestSchema1, types.OCIConfigJSON, types.OCILayer
	if s.docker {
		manifestType, configType, layerType = types.DockerManifestSchema2, types.DockerConfigJSON, types.DockerLayer
	}
	created := v1.Time{Time: made}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, manifestType), configType)
	image, err := mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: s.platform.Architecture,
		OS:           s.platform.OS,
		Variant:      s.platform.Variant,
		Author:       s.author,
		Created:      created,
		Config:       s.config,
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	for _, stream := range s.layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(stream)), nil
		}, tarball.WithMediaType(layerType), tarball.WithCompressionLevel(gzip.DefaultCompression), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{
			Layer:     layer,
			MediaType: layerType,
			History:   v1.History{Created: created, CreatedBy: "ADD rootfs / # base"},
		})
		if err != nil {
			return nil, err
		}
	}
	return mutate.Append(image, mutate.Addendum{
		History: v1.History{Created: created, CreatedBy: "CONFIG # base", EmptyLayer: true},
	})
}

// base is the busybox layer, made once in a program.
var base = sync.OnceValues(busyboxLayer)

// Busybox returns an image of one layer: busybox under the name of every applet, in an otherwise
// nearly empty tree. Its users are root, daemon, app (1000:1000, in wheel and staff), other
// (1001:1002, in staff) and nobody. The binary is the host's whatever platform says.
func Busybox(platform v1.Platform) (v1.Image, error) {
	layer, err := base()
	if err != nil {
		return nil, err
	}
	return busyboxImage(platform, layer)
}

func busyboxImage(platform v1.Platform, layer []byte) (v1.Image, error) {
	return spec{
		platform: platform,
		layers:   [][]byte{layer},
		config:   v1.Config{Cmd: []string{"sh"}, Env: []string{defaultPath}},
	}.image()
}

// Full returns an image with Docker's media types, three layers, of which the last deletes a file
// of the second, and every field of the configuration set.
func Full() (v1.Image, error) {
	lowest, err := base()
	if err != nil {
		return nil, err
	}
	middle, err := newLayer().
		add(directory("srv", 0o755)).
		add(file("srv/keep.txt", 0o644), []byte("keep\n")...).
		add(file("srv/gone.txt", 0o644), []byte("gone\n")...).
		bytes()
	if err != nil {
		return nil, err
	}
	highest, err := newLayer().
		add(directory("srv", 0o755)).
		add(file("srv/.wh.gone.txt", 0o644)).
		add(file("srv/more.txt", 0o644), []byte("more\n")...).
		bytes()
	if err != nil {
		return nil, err
	}
	return spec{
		platform: Host(),
		author:   "base author",
		docker:   true,
		layers:   [][]byte{lowest, middle, highest},
		config: v1.Config{
			User:         "app:staff",
			ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			Env:          []string{"PATH=/opt/bin:/usr/bin:/bin", "GREETING=hello", "EMPTY="},
			Entrypoint:   []string{"/bin/echo", "entry"},
			Cmd:          []string{"cmd"},
			Volumes:      map[string]struct{}{"/data": {}},
			WorkingDir:   "/srv",
			Labels:       map[string]string{"base.label": "one", "shared": "base"},
			StopSignal:   "SIGUSR1",
			Shell:        []string{"/bin/sh", "-ec"},
			Healthcheck:  &v1.HealthConfig{Test: []string{"CMD", "true"}, Interval: 5 * time.Second, Retries: 2},
		},
	}.image()
}

// OnBuild returns a busybox whose configuration has triggers for the build that is FROM it: an
// ARG, a RUN, a COPY of payload.txt, and a LABEL.
func OnBuild() (v1.Image, error) {
	layer, err := base()
	if err != nil {
		return nil, err
	}
	return spec{
		platform: Host(),
		layers:   [][]byte{layer},
		config: v1.Config{
			Cmd: []string{"sh"},
			Env: []string{"PATH=/bin"},
			OnBuild: []string{
				"ARG WHO=trigger",
				"RUN echo from $WHO > /onbuild.txt",
				"COPY payload.txt /payload.txt",
				"LABEL triggered=yes",
			},
		},
	}.image()
}

// Empty returns an image without layers.
func Empty() (v1.Image, error) {
	return spec{platform: Host(), config: v1.Config{Labels: map[string]string{"only": "config"}}}.image()
}

// Index returns an index of what image gives for each platform.
func Index(image func(v1.Platform) (v1.Image, error), platforms ...v1.Platform) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range platforms {
		one, err := image(p)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return index, nil
}

// Platforms are those of the multi-platform images: amd64, arm64/v8 and arm/v7.
func Platforms() []v1.Platform {
	return []v1.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
		{OS: "linux", Architecture: "arm", Variant: "v7"},
	}
}

// Push sends an image or an index to a registry under a reference such as
// "127.0.0.1:5000/library/busybox:latest". Registries on the loopback interface are spoken to in
// plain HTTP.
func Push(ctx context.Context, reference string, what remote.Taggable) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	if err := remote.Push(ref, what, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// PushAll sends the images that need nothing but busybox to the registry at host: in library/
// busybox (an index of Platforms), full, onbuild and empty, each as latest.
func PushAll(ctx context.Context, host string) error {
	busybox, err := Index(Busybox, Platforms()...)
	if err != nil {
		return err
	}
	full, err := Full()
	if err != nil {
		return err
	}
	onbuild, err := OnBuild()
	if err != nil {
		return err
	}
	none, err := Empty()
	if err != nil {
		return err
	}
	host = strings.TrimSuffix(host, "/")
	for repository, what := range map[string]remote.Taggable{"busybox": busybox, "full": full, "onbuild": onbuild, "empty": none} {
		if err := Push(ctx, host+"/library/"+repository+":latest", what); err != nil {
			return err
		}
	}
	return nil
}
