package testimage

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// debianArchitectures are Debian's names of platforms.
var debianArchitectures = map[string]string{
	"amd64": "amd64", "386": "i386", "arm64": "arm64", "arm": "armhf", "ppc64le": "ppc64el", "s390x": "s390x",
}

// ForeignBusybox is Busybox with a binary of the platform that is said. One that is not the host's
// comes from a Debian mirror, takes mmdebstrap some seconds, and is kept in cacheDir.
func ForeignBusybox(ctx context.Context, cacheDir string, platform v1.Platform) (v1.Image, error) {
	if platform.Architecture == Host().Architecture {
		return Busybox(platform)
	}
	arch, ok := debianArchitectures[platform.Architecture]
	if !ok {
		return nil, fmt.Errorf("busybox of %s: Debian has none", platform)
	}
	var layer []byte
	err := kept(cacheDir, "busybox-"+arch, func(dir string) (err error) {
		layer, err = busyboxTree(filepath.Join(dir, "busybox"))
		return err
	}, func(dir string) error { return unpackBusybox(ctx, arch, dir) })
	if err != nil {
		return nil, fmt.Errorf("busybox of %s: %w", platform, err)
	}
	return busyboxImage(platform, layer)
}

// unpackBusybox writes the binary of Debian's package to dir. Nothing of it is run.
func unpackBusybox(ctx context.Context, arch, dir string) error {
	tree := dir + ".tar"
	// The release alone: its updates come from servers that are not always whole for each processor.
	const release = "deb http://deb.debian.org/debian bookworm main"
	args := []string{"--quiet", "--variant=extract", "--architectures=" + arch, "--include=busybox-static", "bookworm", tree, release}
	if out, err := exec.CommandContext(ctx, "mmdebstrap", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	file, err := os.Open(tree)
	if err != nil {
		return err
	}
	defer file.Close()
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("busybox-static holds no busybox")
		case err != nil:
			return err
		case header.Typeflag != tar.TypeReg || path.Base(header.Name) != "busybox" || path.Base(path.Dir(header.Name)) != "bin":
			continue
		}
		out, err := os.Create(filepath.Join(dir, "busybox"))
		if err != nil {
			return err
		}
		_, err = io.Copy(out, reader)
		return errors.Join(err, out.Close())
	}
}
