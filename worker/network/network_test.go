package network

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

func TestProvidersFor(t *testing.T) {
	for mode, want := range map[pb.NetMode]Namespace{
		pb.NetMode_UNSET: {Host: true},
		pb.NetMode_HOST:  {Host: true},
		pb.NetMode_NONE:  {},
	} {
		p, err := Providers{}.For(mode)
		require.NoError(t, err)
		got, err := p.Acquire(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.NoError(t, p.Close())
	}
	p, err := Providers{Default: None()}.For(pb.NetMode_UNSET)
	require.NoError(t, err)
	require.Equal(t, None(), p)
	_, err = Providers{}.For(99)
	require.ErrorIs(t, err, ErrUnknownMode)
	require.EqualError(t, err, "unknown network mode 99")
}

// pluginDirs are where the plugins of the projects and of distributions are.
var pluginDirs = []string{"/opt/cni/bin", "/usr/lib/cni"}

func TestAPluginThatIsMissingIsNoticedAtOnce(t *testing.T) {
	conf, err := BridgeConfig("bktest", "10.211.7.0/24")
	require.NoError(t, err)
	empty := t.TempDir()
	_, err = NewCNI(t.Context(), CNIConfig{StateDir: t.TempDir(), BinDirs: []string{empty}, Config: conf})
	require.EqualError(t, err, `CNI plugin "loopback" of network "cni-loopback" is not in `+empty)
	require.NoError(t, os.WriteFile(filepath.Join(empty, "loopback"), nil, 0o755))
	_, err = NewCNI(t.Context(), CNIConfig{StateDir: t.TempDir(), BinDirs: []string{"/nonexistent", empty}, Config: conf})
	require.EqualError(t, err, `CNI plugin "bridge" of network "buildkit" is not in /nonexistent, `+empty)
}

// newBridge returns a provider with a bridge of this test's own. It needs the CNI plugins.
func newBridge(t *testing.T, bridge, subnet string, pool int) (*CNI, string) {
	t.Helper()
	conf, err := BridgeConfig(bridge, subnet)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "netns")
	c, err := NewCNI(t.Context(), CNIConfig{
		StateDir: dir, BinDirs: pluginDirs, Config: conf, PoolSize: pool,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, entries)
		require.NoError(t, exec.Command("ip", "link", "delete", bridge).Run())
	})
	return c, dir
}

// addresses returns what "ip" shows in the namespace.
func addresses(t *testing.T, n Namespace) string {
	t.Helper()
	out, err := exec.Command("nsenter", "--net="+n.Path, "ip", "-o", "-4", "addr").CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestBridgeGivesEveryContainerAnAddress(t *testing.T) {
	c, _ := newBridge(t, "bktest0", "10.211.7.0/24", 0)
	first, err := c.Acquire(t.Context(), "")
	require.NoError(t, err)
	second, err := c.Acquire(t.Context(), "box")
	require.NoError(t, err)
	one, two := addresses(t, first), addresses(t, second)
	require.Contains(t, one, "127.0.0.1/8")
	require.Contains(t, one, "10.211.7.")
	require.NotEqual(t, strings.Fields(one), strings.Fields(two))
	require.NoError(t, first.Release())
	require.NoError(t, second.Release())
}

func TestOnlyWhatGoesThroughANamespaceOfItsOwnIsCounted(t *testing.T) {
	c, _ := newBridge(t, "bktest3", "10.211.10.0/24", 0)
	n, err := c.Acquire(t.Context(), "")
	require.NoError(t, err)
	defer func() { require.NoError(t, n.Release()) }()
	exchange := func(target string) {
		t.Helper()
		// Nobody listens: a segment goes out and its refusal comes in.
		out, err := exec.Command("nsenter", "--net="+n.Path, "bash", "-c", "exec 3<>/dev/tcp/"+target+"/9").CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "refused")
	}
	exchange("10.211.10.1")
	there := threadsIn(t, n)
	meter := n.Meter()
	before := meter()
	exchange("127.0.0.1")
	exchange("10.211.10.1")
	after := meter().Since(before)
	require.Positive(t, after.TxBytes)
	require.Positive(t, after.RxBytes)
	require.GreaterOrEqual(t, after.TxPackets, int64(1))
	require.GreaterOrEqual(t, after.RxPackets, int64(1))
	require.Zero(t, after.TxErrors)
	for range 100 {
		meter()
	}
	require.Less(t, meter().TxBytes, int64(10_000), "what others have sent counts for nothing")
	require.Equal(t, there, threadsIn(t, n), "no thread stays there")
}

// threadsIn returns how many threads of the test are in a namespace.
func threadsIn(t *testing.T, n Namespace) (count int) {
	t.Helper()
	wanted, err := os.Stat(n.Path)
	require.NoError(t, err)
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	require.NoError(t, err)
	for _, task := range tasks {
		if own, err := os.Stat(task); err == nil && os.SameFile(own, wanted) {
			count++
		}
	}
	return count
}

func TestNamespacesWithoutInterfacesOfTheirOwnAreNotCounted(t *testing.T) {
	require.Nil(t, Namespace{Host: true}.Meter())
	require.Nil(t, Namespace{}.Meter())
	require.Nil(t, Namespace{Path: filepath.Join(t.TempDir(), "gone")}.Meter())
}

func TestPoolKeepsFreshNamespacesReady(t *testing.T) {
	c, dir := newBridge(t, "bktest1", "10.211.8.0/24", 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	ready := (<-c.pool).handle(ctx)
	n, err := c.Acquire(t.Context(), "")
	require.NoError(t, err)
	require.NotEqual(t, ready.Path, n.Path)
	for _, n := range []Namespace{ready, n} {
		require.Contains(t, addresses(t, n), "10.211.8.")
		require.NoError(t, n.Release())
	}
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, c.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestLeftoversOfAnEarlierDaemonAreRemoved(t *testing.T) {
	c, dir := newBridge(t, "bktest2", "10.211.9.0/24", 0)
	_, err := c.make(t.Context(), "")
	require.NoError(t, err)
	conf, err := BridgeConfig("bktest2", "10.211.9.0/24")
	require.NoError(t, err)
	later, err := NewCNI(t.Context(), CNIConfig{StateDir: dir, BinDirs: []string{"/opt/cni/bin", "/usr/lib/cni"}, Config: conf})
	require.NoError(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.NoError(t, later.Close())
}

func TestConfigurationsAreReadInBothForms(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "cni.json")
	conf, err := BridgeConfig("b", "10.0.0.0/8")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(list, conf, 0o600))
	require.True(t, isList(list))
	single := filepath.Join(dir, "single.conf")
	require.NoError(t, os.WriteFile(single, []byte(`{"cniVersion":"1.0.0","name":"n","type":"bridge"}`), 0o600))
	require.False(t, isList(single))
	for _, file := range []string{list, single} {
		_, err := NewCNI(t.Context(), CNIConfig{StateDir: filepath.Join(dir, "s"), BinDirs: pluginDirs, ConfigFile: file})
		require.NoError(t, err)
	}
	_, err = NewCNI(t.Context(), CNIConfig{StateDir: filepath.Join(dir, "s"), ConfigFile: filepath.Join(dir, "none")})
	require.ErrorContains(t, err, "load CNI configuration")
}
