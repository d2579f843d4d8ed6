package runc

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
)

// dead lists children of this process that have ended and that nobody has waited for.
func dead(t *testing.T) []int {
	t.Helper()
	all, err := procfs.AllProcs()
	require.NoError(t, err)
	var out []int
	for _, p := range all {
		if st, err := p.Stat(); err == nil && st.PPID == os.Getpid() && st.State == "Z" {
			out = append(out, st.PID)
		}
	}
	return out
}

func TestOrphansOfContainersAreReaped(t *testing.T) {
	require.NoError(t, adoptOrphans())
	before := dead(t)
	cmd := exec.Command("sh", "-c", "sleep 0 & exit 0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	require.NoError(t, cmd.Run())
	require.Eventually(t, func() bool { return len(dead(t)) > len(before) }, 10*time.Second, time.Millisecond)
	require.NoError(t, reapOrphans())
	require.Equal(t, before, dead(t))
}
