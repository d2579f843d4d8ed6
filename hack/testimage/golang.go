package testimage

import (
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// goContents is what of a toolchain is needed to compile.
var goContents = []string{"bin", "lib", "pkg", "src", "go.env", "VERSION"}

// Go returns base with the Go toolchain of goroot, in the places that the golang images have it.
func Go(base v1.Image, goroot string) (v1.Image, error) {
	tree, err := goTree(goroot)
	if err != nil {
		return nil, err
	}
	// Left uncompressed: it is used in one test, on the same machine.
	image, err := mutate.Append(base, mutate.Addendum{
		Layer:     static.NewLayer(tree, types.OCIUncompressedLayer),
		MediaType: types.OCIUncompressedLayer,
		History:   v1.History{Created: v1.Time{Time: made}, CreatedBy: "ADD go /usr/local/go # base"},
	})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config := *file.Config.DeepCopy()
	config.WorkingDir = "/go"
	config.Env = []string{"PATH=/go/bin:/usr/local/go/bin:" + defaultPath[len("PATH="):], "GOPATH=/go"}
	return mutate.Config(image, config)
}

// goTree returns the tar stream of a toolchain at usr/local/go, without test data.
func goTree(goroot string) ([]byte, error) {
	w := newLayer()
	w.add(directory("go", 0o1777))
	for _, name := range goContents {
		err := filepath.WalkDir(filepath.Join(goroot, name), func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(goroot, name)
			if err != nil {
				return err
			}
			target := "usr/local/go/" + filepath.ToSlash(rel)
			if entry.IsDir() {
				if entry.Name() == "testdata" {
					return fs.SkipDir
				}
				w.add(directory(target, 0o755))
				return w.err
			}
			info, err := os.Stat(name)
			if err != nil {
				return err
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			w.add(file(target, int64(info.Mode().Perm())), data...)
			return w.err
		})
		if err != nil {
			return nil, err
		}
	}
	return w.bytes()
}
