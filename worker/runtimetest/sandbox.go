package runtimetest

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/usage"
)

func testHosts(t *testing.T, b *box) {
	require.Equal(t, "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\nbuildkitsandbox",
		b.must(t, "cat /etc/hosts; hostname"))
	out := b.must(t, "cat /etc/hosts; hostname; grep -c . /etc/resolv.conf", func(c *ctr, _ *proc) {
		c.Hostname = "box"
		c.ExtraHosts = []*pb.HostIP{{Host: "db", IP: "10.0.0.1"}, {Host: "v6", IP: "::5"}}
	})
	require.True(t, strings.HasPrefix(out,
		"127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n::5\tv6\nbox\n"), out)
	out, _, err := b.run(t, "echo x > /etc/hosts; echo x > /etc/resolv.conf; touch /etc/hosts; echo $?")
	require.NoError(t, err)
	require.Equal(t, "1\n", out)
}

func testSandbox(t *testing.T, b *box) {
	require.Equal(t, "0000000000000000 00000000a80425fb 00000000a80425fb 00000000a80425fb 0000000000000000 0 2",
		b.must(t, `echo $(grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | awk '{print $2}')`))
	require.Equal(t, "0000000000000000 00000000a80425fb",
		b.must(t, `echo $(grep -E '^Cap(Eff|Bnd)' /proc/self/status | awk '{print $2}')`,
			func(_ *ctr, p *proc) { p.User = "app" }))

	const modes = `awk '{print $2, $3, $4}' /proc/mounts`
	mounts := b.must(t, modes)
	for _, line := range []string{
		"/dev tmpfs rw,nosuid,size=65536k,mode=755",
		"/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
		"/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
		"/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k",
		"/proc proc rw,nosuid,nodev,noexec,relatime",
		"/proc/sys proc ro",
		"/sys sysfs ro,nosuid,nodev,noexec,relatime",
		"/proc/acpi tmpfs ro",
		"/sys/firmware tmpfs ro",
	} {
		fields := strings.Fields(line)
		for _, opt := range strings.Split(fields[2], ",") {
			require.Regexp(t, "(?m)^"+fields[0]+" "+fields[1]+" (.*,)?"+opt+"(,.*)?$", mounts)
		}
	}
	require.Regexp(t, `(?m)^/etc/hosts \S+ (.*,)?ro,(.*,)?nosuid,nodev,noexec`, mounts)
	require.Regexp(t, `(?m)^/sys/fs/cgroup\S* cgroup\S* (.*,)?ro,`, mounts)
	require.NotContains(t, mounts, "/run ")

	out, _, err := b.run(t, "mount -t tmpfs t /tmp; echo $?; echo 1 > /proc/sys/kernel/panic; echo $?; touch /sys/x; echo $?; "+
		"cat /proc/keys | wc -c; mknod /tmp/n c 1 3; echo $?; mknod /tmp/disk b 8 0; head -c1 /tmp/disk; echo $?; "+
		"echo $$; tty; hostname other; echo $?")
	require.NoError(t, err)
	require.Equal(t, "1\n1\n1\n0\n0\n1\n1\nnot a tty\n1\n", out, "the last line is of sethostname")
}

func testInsecure(t *testing.T, b *box) {
	insecure := func(c *ctr, _ *proc) { c.Security = pb.SecurityMode_INSECURE }
	caps := b.must(t, `echo $(grep -E '^(Cap|Seccomp:)' /proc/self/status | awk '{print $2}')`, insecure)
	own, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	var eff string
	for line := range strings.Lines(string(own)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			eff = strings.TrimSpace(v)
		}
	}
	require.Equal(t, strings.Join([]string{eff, eff, eff, eff, eff, "0"}, " "), caps)
	out := b.must(t, "mount -t tmpfs t /tmp && echo mounted; ls /dev | grep -E '^(fuse|kmsg|loop-control|loop0)$' | sort; "+
		"grep -c ' /proc/sys \\| /sys/firmware ' /proc/mounts; true", insecure)
	require.Equal(t, "mounted\nfuse\nkmsg\nloop-control\nloop0\n0", out)
}

func testNoNetwork(t *testing.T, b *box) {
	require.Equal(t, "lo:", b.must(t, `awk 'NR>2{print $1}' /proc/net/dev; exit 0`,
		func(c *ctr, _ *proc) { c.Network = pb.NetMode_NONE }))
	var st unix.Stat_t
	require.NoError(t, unix.Stat("/proc/self/ns/net", &st))
	host := func(c *ctr, _ *proc) { c.Network = pb.NetMode_HOST }
	ns, err := os.Readlink("/proc/self/ns/net")
	require.NoError(t, err)
	require.Equal(t, ns, b.must(t, "readlink /proc/self/ns/net", host))
	_, _, err = b.run(t, "true", func(c *ctr, _ *proc) { c.Network = 77 })
	require.ErrorContains(t, err, "unknown network mode")
}

func testLimits(t *testing.T, b *box) {
	out := b.must(t, "ulimit -n; ulimit -Hn; ulimit -c; cd /sys/fs/cgroup; "+
		"cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max; "+
		"cat cpu/cpu.cfs_quota_us 2>/dev/null || awk '{print $1}' cpu.max",
		func(c *ctr, _ *proc) {
			c.Ulimits = []*pb.Ulimit{{Name: "nofile", Soft: 111, Hard: 222}, {Name: "core"}}
			c.Resources = &pb.LinuxResources{Memory: 64 << 20, CpuPeriod: 100000, CpuQuota: 50000}
		})
	require.Equal(t, "111\n222\n0\n67108864\n50000", out)
	_, _, err := b.run(t, "true", func(c *ctr, _ *proc) { c.Ulimits = []*pb.Ulimit{{Name: "files"}} })
	require.EqualError(t, err, `unknown ulimit "files"`)
}

func testUsage(t *testing.T, b *box) {
	step := &usage.Step{}
	b.must(t, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done", func(c *worker.Container, _ *worker.Process) { c.Usage = step })
	all := step.Samples()
	require.NotNil(t, all)
	require.NotNil(t, all.System)
	last := all.Samples[len(all.Samples)-1]
	require.Greater(t, *last.CPU.UsageNanos, uint64(time.Millisecond))
	require.Positive(t, *last.Memory.Peak)
	require.Positive(t, *last.Memory.PageFaults)
	require.NotNil(t, last.PIDs)
}

func testOOM(t *testing.T, b *box) {
	limit := func(c *ctr, _ *proc) {
		c.Resources = &pb.LinuxResources{Memory: 16 << 20, MemorySwap: 16 << 20}
	}
	_, _, err := b.run(t, "exec awk 'BEGIN { while (1) { s = s \"0123456789012345678901234567890123456789\" s } }'", limit)
	requireExit(t, err, 137)
	require.EqualError(t, err, "cannot allocate memory")
	_, _, err = b.run(t, "exit 7", limit)
	require.EqualError(t, err, "exit code: 7")
}
