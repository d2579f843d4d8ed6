package e2e_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestNoMoreStepsRunAtOnceThanTheDaemonIsToldTo(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options harness.DaemonOptions
		rounds  string
		most    string
	}{
		"configured":   {harness.DaemonOptions{Config: "[worker.oci]\nmax-parallelism = 2\n"}, "1 2 3", "2\n"},
		"one at once":  {harness.DaemonOptions{Args: []string{"--oci-max-parallelism=1"}}, "1 2 3", "1\n"},
		"no limit set": {harness.DaemonOptions{}, "1 2 3 4 5 6 7 8", "6\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := start(t, tc.options)
			base, out := llb.Image("docker.io/library/busybox"), t.TempDir()
			shared := llb.AddMount("/c", llb.Scratch(), llb.PersistentCache("parallel", llb.CacheShared))
			opts := []llb.RunOption{llb.Shell("sort -n /c/counts | tail -n 1 > /out/most"), shared}
			for i := range 6 {
				// Each step counts those that run beside it until all have had time to start.
				script := fmt.Sprintf("mkdir -p /c/running; touch /c/running/%d; for n in %s; do ls /c/running | wc -l >> /c/counts; sleep 0.25; done; rm /c/running/%d", i, tc.rounds, i)
				step := base.Run(llb.Shell(script), shared).Root()
				opts = append(opts, llb.AddMount(fmt.Sprint("/step", i), step, llb.Readonly()))
			}
			last := base.Run(append(opts, llb.AddMount("/out", llb.Scratch()))...)
			requireSolved(t, solve(t, d, marshal(t, last.GetMount("/out")), toLocal(out)))
			require.Equal(t, tc.most, read(t, filepath.Join(out, "most")))
		})
	}
}
