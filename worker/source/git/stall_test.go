//go:build linux

package git

import (
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	sshsession "github.com/openbuildkit/buildkit/session/ssh"
)

func TestAServerThatFallsSilentIsGivenUp(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	newRepo(t, root, "r")
	silent, _ := hanging(t)
	mine, file := newKey(t)
	login := serveSSH(t, mine.PublicKey())
	login.mute()
	// One that answers, and falls silent within the files.
	half := gitProxy(t, root, func(to io.Writer, from io.Reader) {
		_, _ = io.CopyN(to, from, 700)
		_, _ = io.Copy(io.Discard, from)
	})
	for name, u := range map[string]string{
		"git": "git://" + silent + "/r", "ssh": "ssh://git@" + silent + "/r", "http": "http://" + silent + "/r.git",
		"a login": "ssh://git@" + login.addr + root + "/r", "a part": "git://" + half + "/r",
	} {
		p, err := sshsession.NewProvider([]sshsession.AgentConfig{{Paths: []string{file}}})
		require.NoError(t, err)
		b := newBench(t, p)
		b.src.cfg.Stall = 2 * time.Second
		var a attrs
		if name == "ssh" || name == "a login" {
			a = attrs{pb.AttrGitMountSSHSock: "default"}
		}
		_, err = b.fetch(u, "main", a)
		var failed *RemoteError
		require.ErrorAs(t, err, &failed, name)
		require.Regexp(t, "the server sent nothing for 2s|Operation too slow", err.Error(), name)
		require.Eventually(t, func() bool { return len(processes(t, u)) == 0 }, 20*time.Second, 20*time.Millisecond, name)
	}
}

func TestASlowServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	start := time.Now()
	const stall = 3 * time.Second
	slow := gitProxy(t, root, func(to io.Writer, from io.Reader) {
		for time.Since(start) < 2*stall {
			if _, err := io.CopyN(to, from, 1); err != nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
		_, _ = io.Copy(to, from)
	})
	b := newBench(t)
	b.src.cfg.Stall = stall
	require.Equal(t, r.head(), b.must("git://"+slow+"/r", "main", nil).key.Pin)
	require.Greater(t, time.Since(start), stall)
}

func TestWhatProcessesDo(t *testing.T) {
	t.Parallel()
	was := pulse{bytes: 10, faults: 1, ticks: 5}
	const second = time.Second
	for name, c := range map[string]struct {
		now  pulse
		want bool
	}{
		"nothing":          {pulse{bytes: 10, faults: 1, ticks: 5}, false},
		"a timer":          {pulse{bytes: 10, faults: 1, ticks: 6}, false},
		"a byte":           {pulse{bytes: 11, faults: 1, ticks: 5}, true},
		"a page":           {pulse{bytes: 10, faults: 2, ticks: 5}, true},
		"work":             {pulse{bytes: 10, faults: 1, ticks: 25}, true},
		"another process":  {pulse{bytes: 3}, true},
		"nobody can tell":  {pulse{unknown: true}, true},
		"a process is new": {pulse{bytes: 10, faults: 1, ticks: 4}, true},
	} {
		require.Equal(t, c.want, was.livesIn(c.now, second), name)
	}
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	cmd.Stdout = io.Discard
	require.NoError(t, cmd.Start())
	before := pulseOf(cmd.Process.Pid)
	require.False(t, before.unknown)
	_, err = in.Write(make([]byte, 1000))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return pulseOf(cmd.Process.Pid).bytes >= before.bytes+1000 }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	require.Equal(t, pulse{}, pulseOf(cmd.Process.Pid))
}

func FuzzParseStat(f *testing.F) {
	stat, err := os.ReadFile("/proc/self/stat")
	require.NoError(f, err)
	f.Add(string(stat), 1)
	f.Add("7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 5 6", 7)
	f.Add("7 )( S", 7)
	f.Fuzz(func(_ *testing.T, stat string, group int) { parseStat(stat, group) })
}
