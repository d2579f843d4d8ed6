package testimage

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// debianArgs make a Debian of its essential packages, apt and a C compiler, without the files that no
// build looks at: 270 MB unpacked.
var debianArgs = []string{
	"--quiet",
	"--variant=minbase",
	"--include=ca-certificates,gcc,libc6-dev",
	"--dpkgopt=force-unsafe-io",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/lib/gcc/*/*/lto1",
	"--dpkgopt=path-exclude=/usr/bin/*-lto-dump-*",
	`--aptopt=Acquire::Languages "none"`,
	`--aptopt=APT::Install-Recommends "false"`,
	`--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*`,
	"bookworm",
}

// Debian returns an image of a small Debian with apt and gcc, for builds that do real work. Making it
// takes a minute or two, root, and a Debian mirror; the result is kept in cacheDir, which several
// processes may use at once, and made again only when its definition changes.
func Debian(ctx context.Context, cacheDir string) (v1.Image, error) {
	id := sha256.Sum256([]byte(strings.Join(debianArgs, "\x00")))
	var image v1.Image
	err := kept(cacheDir, "debian-"+hex.EncodeToString(id[:6]), func(dir string) (err error) {
		image, err = readLayout(dir)
		return err
	}, func(dir string) error { return makeDebian(ctx, dir) })
	if err != nil {
		return nil, fmt.Errorf("make the Debian image: %w", err)
	}
	return image, nil
}

// kept has build put something into a new folder, which is then name in cacheDir, unless read finds
// it there. Several processes may do so at once.
func kept(cacheDir, name string, read, build func(dir string) error) error {
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return err
	}
	dir := filepath.Join(cacheDir, name)
	lock := flock.New(dir + ".lock")
	if err := lock.Lock(); err != nil {
		return err
	}
	defer lock.Unlock() //nolint:errcheck // closing the file ends the lock too

	if err := read(dir); err == nil {
		return nil
	}
	partial, err := os.MkdirTemp(cacheDir, "partial-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(partial)
	made := filepath.Join(partial, name)
	if err := os.Mkdir(made, 0o755); err != nil {
		return err
	}
	if err := build(made); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(made, dir); err != nil {
		return err
	}
	return read(dir)
}

// makeDebian writes the image as an OCI layout to dir.
func makeDebian(ctx context.Context, dir string) error {
	tree := dir + ".tar"
	args := append(append([]string(nil), debianArgs...), tree)
	if out, err := exec.CommandContext(ctx, "mmdebstrap", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	layer, err := tarball.LayerFromFile(tree, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return err
	}
	image, err := spec{
		platform: Host(),
		config:   v1.Config{Cmd: []string{"sh"}, Env: []string{defaultPath}},
	}.image()
	if err != nil {
		return err
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:     layer,
		MediaType: types.OCILayer,
		History:   v1.History{Created: v1.Time{Time: made}, CreatedBy: "ADD debian / # base"},
	})
	if err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(image)
}

// readLayout returns the only image of an OCI layout.
func readLayout(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("%s holds %d images, want 1", dir, len(manifest.Manifests))
	}
	return index.Image(manifest.Manifests[0].Digest)
}
