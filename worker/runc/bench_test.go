package runc

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/runtimetest"
)

// BenchmarkStep compares a step with the same container run by the OCI runtime's commands alone:
// what we add is the difference.
func BenchmarkStep(b *testing.B) {
	dir := b.TempDir()
	r, err := NewRuntime(b.Context(), RuntimeConfig{Root: filepath.Join(dir, "r"), Binary: "runc", CgroupParent: "bench"})
	require.NoError(b, err)
	b.Cleanup(func() { removeCgroupParents("/bench") })
	tree := runtimetest.NewTree(b)
	c := worker.Container{ID: "bench", Root: worker.Mount{Source: tree, Dest: "/"}}
	p := worker.Process{Args: []string{"/bin/true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}
	b.Run("runtime", func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, r.Run(b.Context(), c, p, nil))
		}
	})
	b.Run("commands", func(b *testing.B) {
		ct, err := r.register(c)
		require.NoError(b, err)
		defer r.unregister(ct)
		bundle, err := r.openBundle(b.Context(), ct, p)
		require.NoError(b, err)
		defer func() { require.NoError(b, bundle.close()) }()
		alone := oci{binary: r.oci.binary, state: r.oci.state, stays: true}
		run := alone.commander(r.cgroupsPath(ct), bundle.dir, ct.id, "run", "--keep", "--bundle", bundle.dir)
		client := r.oci.client(r.cgroupsPath(ct))
		for b.Loop() {
			require.NoError(b, run().Run())
			require.NoError(b, client.Delete(b.Context(), ct.id, nil))
		}
	})
}
