package e2e_test

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// stamps returns when each file and folder of the daemon's state has changed last.
func stamps(t *testing.T, d *harness.Daemon) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(d.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// The record that there was a build is all that is written.
		if entry.IsDir() && entry.Name() == "history" {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		all[path] = fmt.Sprint(info.ModTime(), info.Size())
		return nil
	}))
	return all
}

func TestABuildThatFindsAllInTheCacheWritesNothing(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	context := tree(t, map[string]string{
		"Dockerfile": "FROM busybox\nCOPY file /\nRUN cat /file > /copy\nCOPY folder /folder\n",
		"file":       "text", "folder/a": "a", "folder/b": "b", ".dockerignore": "unused\n", "unused": "u",
	})
	d.Build(t, context)
	// How often records were used is written when the daemon stops, or some seconds after a build.
	const quiet = 8 * time.Second
	for range 5 {
		d.Restart(t)
		began := time.Now()
		d.Build(t, context)
		<-time.After(time.Second) // whatever is written in the background has begun by then
		before := stamps(t, d)
		require.Empty(t, ran(d.Build(t, context)))
		<-time.After(time.Second)
		after := stamps(t, d)
		if time.Since(began) < quiet {
			require.Equal(t, before, after)
			return
		}
	}
	t.Fatal("the machine is too slow for this test")
}
