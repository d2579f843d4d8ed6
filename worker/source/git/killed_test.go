//go:build linux

package git

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// remoteOfChild is the variable by which a test has this program run git on a remote, as a daemon
// does, until it is killed.
const remoteOfChild = "TEST_GIT_REMOTE"

// A daemon that is killed leaves neither git nor what git has begun.
func TestGitDiesWithTheDaemon(t *testing.T) {
	if remote := os.Getenv(remoteOfChild); remote != "" {
		c := command{stall: time.Hour, env: []string{"PATH=" + os.Getenv("PATH"), "GIT_SSH_COMMAND=ssh -F /dev/null"}}
		_, err := c.run(context.Background(), runOpt{remote: true}, "ls-remote", remote)
		t.Fatal("it was to hang: ", err)
	}
	t.Parallel()
	for scheme, helper := range map[string]string{"http": "remote-http", "ssh": "ssh", "git": ""} {
		t.Run(scheme, func(t *testing.T) {
			addr, connected := hanging(t)
			remote := scheme + "://" + addr + "/r-of-" + scheme
			daemon := exec.Command(os.Args[0], "-test.run=^"+t.Name()[:strings.Index(t.Name(), "/")]+"$")
			daemon.Env = append(os.Environ(), remoteOfChild+"="+remote)
			require.NoError(t, daemon.Start())
			<-connected
			found := strings.Join(processes(t, addr[strings.Index(addr, ":")+1:]), "\n")
			require.Contains(t, found, helper)
			require.NoError(t, daemon.Process.Kill())
			require.Error(t, daemon.Wait())
			gone := func() bool { return len(processes(t, addr[strings.Index(addr, ":")+1:])) == 0 }
			require.Eventually(t, gone, 10*time.Second, 10*time.Millisecond, found)
		})
	}
}
