package spec_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/network"
	"github.com/openbuildkit/buildkit/worker/spec"
)

var update = flag.Bool("update", false, "write the golden files")

var host = spec.Host{
	Seccomp:      &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}},
	Capabilities: []string{"CAP_CHOWN", "CAP_SYS_ADMIN"},
	Devices:      []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}},
}

func input(change ...func(*spec.Input)) spec.Input {
	in := spec.Input{
		ID:      "theid",
		Process: worker.Process{Args: []string{"/bin/sh", "-c", "true"}, Env: []string{"PATH=/bin"}, Cwd: "/"},
		User:    spec.User{Groups: []uint32{0}},
		Rootfs:  "/bundle/rootfs",
		Mounts: []specs.Mount{
			spec.FileMount("/etc-files/resolv.conf", "/etc/resolv.conf"),
			spec.FileMount("/etc-files/hosts", "/etc/hosts"),
		},
		Network:     network.Namespace{Host: true},
		CgroupsPath: spec.CgroupsPath("", "theid"),
	}
	for _, f := range change {
		f(&in)
	}
	return in
}

func TestBuildGolden(t *testing.T) {
	with := func(f func(*spec.Host)) spec.Host {
		h := host
		f(&h)
		return h
	}
	for name, c := range map[string]struct {
		host spec.Host
		in   spec.Input
	}{
		"sandbox":  {host, input()},
		"insecure": {host, input(func(in *spec.Input) { in.Container.Security = pb.SecurityMode_INSECURE })},
		"cgroup2-with-network-and-labels": {
			with(func(h *spec.Host) { h.CgroupV2, h.AppArmorProfile = true, "profile" }),
			input(func(in *spec.Input) {
				in.Network = network.Namespace{Path: "/netns/n"}
				in.ProcessLabel, in.MountLabel = "process_t", "mount_t"
			}),
		},
		"rootless-without-process-sandbox": {
			with(func(h *spec.Host) { h.Rootless, h.NoProcessSandbox = true, true }),
			input(func(in *spec.Input) { in.Container.Resources = &pb.LinuxResources{Memory: 1} }),
		},
		"everything": {host, input(func(in *spec.Input) {
			in.Container = worker.Container{
				Hostname: "box", ReadonlyRoot: true,
				Ulimits:   []*pb.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}, {Name: "core", Soft: -1, Hard: -1}},
				Resources: &pb.LinuxResources{Memory: 64, MemorySwap: -1, CpuShares: 2, CpuPeriod: 3, CpuQuota: 4, CpusetCpus: "0", CpusetMems: "0-1"},
			}
			in.Process.Tty, in.Process.Cwd = true, "/work"
			in.Process.Env = []string{"A=1", "PATH=/bin", "A=2"}
			in.User = spec.User{UID: 1000, GID: 10, Groups: []uint32{10, 50}}
			in.Mounts = append(in.Mounts,
				specs.Mount{Destination: "/a/b/c", Type: "bind", Source: "/src"},
				specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"},
				specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/shm"},
				specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/mine"},
			)
			in.Network = network.Namespace{}
			in.CgroupsPath = spec.CgroupsPath("/up", "theid")
		})},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := spec.Build(c.host, c.in)
			require.NoError(t, err)
			got, err := json.MarshalIndent(s, "", " ")
			require.NoError(t, err)
			file := filepath.Join("testdata", name+".json")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(file, append(got, '\n'), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got)+"\n")
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	for want, change := range map[string]func(*spec.Input){
		"process has no arguments":                      func(in *spec.Input) { in.Process.Args = nil },
		`invalid environment variable "=x"`:             func(in *spec.Input) { in.Process.Env = []string{"=x"} },
		`environment variable "A" contains a null byte`: func(in *spec.Input) { in.Process.Env = []string{"A=\x00"} },
		`unknown ulimit "nofiles"`:                      func(in *spec.Input) { in.Container.Ulimits = []*pb.Ulimit{{Name: "nofiles"}} },
	} {
		_, err := spec.Build(host, input(change))
		require.EqualError(t, err, want)
	}
}

func TestCgroupsPath(t *testing.T) {
	for parent, want := range map[string]string{
		"":                     "/buildkit/id",
		"/":                    "/buildkit/id",
		"up":                   "/up/buildkit/id",
		"/up/down":             "/up/down/buildkit/id",
		"../../../etc":         "/etc/buildkit/id",
		"system.slice:prefix:": "system.slice:prefix:id",
		"system.slice:prefix":  "system.slice:prefix:id",
		"system.slice":         "/system.slice/buildkit/id",
	} {
		require.Equal(t, want, spec.CgroupsPath(parent, "id"), parent)
	}
}

func TestHosts(t *testing.T) {
	got, err := spec.Hosts("", nil)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n", string(got))
	got, err = spec.Hosts("box", []*pb.HostIP{{Host: "db", IP: "10.0.0.1"}, {Host: "v6", IP: "::5"}})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n::5\tv6\n", string(got))
	for want, h := range map[string]*pb.HostIP{
		`invalid extra host "a\nb"`:                    {Host: "a\nb", IP: "1.2.3.4"},
		`invalid extra host ""`:                        {IP: "1.2.3.4"},
		`extra host a: invalid IP "1.2.3"`:             {Host: "a", IP: "1.2.3"},
		`extra host a: invalid IP "fe80::1%x\n1 evil"`: {Host: "a", IP: "fe80::1%x\n1 evil"},
	} {
		_, err := spec.Hosts("", []*pb.HostIP{h})
		require.EqualError(t, err, want)
	}
	_, err = spec.Hosts("a\n1.1.1.1 b", nil)
	require.EqualError(t, err, `invalid hostname "a\n1.1.1.1 b"`)
}

func TestResolvConf(t *testing.T) {
	const text = "# comment\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver ::1\ndomain old\nsearch a b\noptions ndots:1 trust-ad\n"
	const public = "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"
	for name, c := range map[string]struct {
		host string
		dns  spec.DNS
		raw  bool
		want string
	}{
		"the host's own network has the host's text": {host: text, raw: true, want: text},
		"loopback servers are left out":              {host: text, want: "nameserver 10.0.0.2\nsearch a b\noptions ndots:1 trust-ad\n"},
		"public servers are the last resort":         {host: "nameserver 127.0.0.53\noptions edns0\n", want: public + "options edns0\n"},
		"no file":                                    {want: public},
		"the configuration wins": {
			host: text, raw: true,
			dns:  spec.DNS{Nameservers: []string{"192.0.2.53"}, Options: []string{"ndots:2"}, SearchDomains: []string{"build.example"}},
			want: "nameserver 192.0.2.53\nsearch build.example\noptions ndots:2\n",
		},
		"a part of the configuration": {
			host: text, raw: true, dns: spec.DNS{SearchDomains: []string{"x"}},
			want: "nameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver ::1\nsearch x\noptions ndots:1 trust-ad\n",
		},
	} {
		require.Equal(t, c.want, string(spec.ResolvConf([]byte(c.host), c.dns, c.raw)), name)
	}
	require.True(t, spec.OnlyResolved([]byte("nameserver 127.0.0.53\n")))
	require.False(t, spec.OnlyResolved([]byte("nameserver 127.0.0.53\nnameserver 1.1.1.1\n")))
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 1.1.1.1\nsearch a\noptions b\n"))
	f.Add([]byte("nameserver\t127.0.0.1\r\ndomain"))
	f.Fuzz(func(t *testing.T, text []byte) {
		once := spec.ResolvConf(text, spec.DNS{}, false)
		require.Equal(t, string(once), string(spec.ResolvConf(once, spec.DNS{}, false)))
	})
}
