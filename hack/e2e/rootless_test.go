package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// Cgroups are closed to such a daemon, unless somebody gives it some.
const noCgroups = "[worker.oci]\ndefaultCgroupParent = ''\n"

func TestADaemonOfAnUnprivilegedUserBuilds(t *testing.T) {
	for name, args := range map[string][]string{
		"with a process sandbox": nil,
		"without one":            {"--oci-worker-no-process-sandbox"},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, harness.DaemonOptions{UserNamespace: true, Config: noCgroups, Args: args})
			dir := dockerfile(t,
				"FROM busybox AS build",
				"RUN tr -s ' ' < /proc/self/uid_map > /ids",
				"RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/tmp echo x > /cache/x && mkdir /me && chown 1000:1000 /me && rm /bin/vi",
				"RUN --network=none ! wget -q -O - http://127.0.0.1:1/",
				"USER app",
				"RUN id -u > /me/id",
				"FROM scratch",
				"COPY --from=build /ids /me/id /",
			)
			out := t.TempDir()
			r := d.Build(t, dir, toLocal(out))
			require.Zero(t, r.Code, r.Stderr)
			require.Equal(t, " 0 100000 65536\n", read(t, out, "ids"))
			require.Equal(t, "1000\n", read(t, out, "id"))
			d.Restart(t)
			require.Empty(t, ran(d.Build(t, dir, toLocal(t.TempDir()))))
		})
	}
}
