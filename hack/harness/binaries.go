package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gofrs/flock"
)

// Root returns the top folder of the source tree.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := root()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// CacheDir returns the folder for what is expensive to make and worth keeping between runs.
func CacheDir(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(Root(tb), ".cache")
}

func root() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod here or above: tests run inside the source tree")
		}
	}
	return "", err
}

// Binaries returns the folder that holds buildkitd and buildctl, built from the tree as it is.
func Binaries(tb testing.TB) string {
	tb.Helper()
	dir, err := binaries()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// binaries builds once in a process. The go command does nothing when the programs of an earlier
// process are still those of the sources; a lock keeps two processes from writing at once.
var binaries = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("BUILDKIT_TEST_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	top, err := root()
	if err != nil {
		return "", err
	}
	dir, args, cgo := filepath.Join(top, ".cache", "bin"), []string{"build", "-buildvcs=false"}, "CGO_ENABLED=0"
	if raceEnabled {
		dir, args, cgo = dir+"-race", append(args, "-race"), "CGO_ENABLED=1"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(dir, ".lock"))
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Unlock() //nolint:errcheck // closing the file ends the lock too

	cmd := exec.Command("go", append(args, "-o", dir+"/", "./cmd/buildkitd", "./cmd/buildctl")...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return dir, nil
})

// Rounds returns how often a test repeats: usual, or soak in `make soak`.
func Rounds(usual, soak int) int {
	if os.Getenv("BUILDKIT_TEST_SOAK") != "" {
		return soak
	}
	return usual
}
