package entitlement_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/openbuildkit/buildkit/api/entitlement"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]entitlement.Entitlement{
		"network.host":                     {Name: "network.host"},
		"security.insecure":                {Name: "security.insecure"},
		"device":                           {Name: "device"},
		"device=vendor/class=x":            {Name: "device", Device: "vendor/class=x"},
		"device=vendor/class=x,alias=my/x": {Name: "device", Device: "vendor/class=x", Alias: "my/x"},
	} {
		got, err := entitlement.Parse(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
	for _, in := range []string{"", "everything", "network.host=x", "device=", "device=a,b", "device=a,alias=", "device=,alias=x", "Device"} {
		_, err := entitlement.Parse(in)
		require.EqualError(t, err, "unknown entitlement "+in)
	}
}

func TestGrantNeedsTheDaemon(t *testing.T) {
	for _, name := range []string{"network.host", "security.insecure", "device", "device=v/c=x"} {
		kind := name[:min(len(name), len("device"))]
		if name[0] != 'd' {
			kind = name
		}
		_, err := entitlement.Grant(slices.DeleteFunc([]string{"network.host", "security.insecure", "device"}, func(s string) bool { return s == kind }), []string{name})
		require.EqualError(t, err, "granting entitlement "+kind+" is not allowed by build daemon configuration")
		require.Equal(t, codes.PermissionDenied, status.Code(err))
	}
	_, err := entitlement.Grant([]string{"network.host"}, []string{"network.host", "everything"})
	require.EqualError(t, err, "unknown entitlement everything")
}

func exec(change func(*pb.ExecOp)) *pb.Op {
	e := &pb.ExecOp{}
	change(e)
	return &pb.Op{Op: &pb.Op_Exec{Exec: e}}
}

func devices(names ...string) *pb.Op {
	return exec(func(e *pb.ExecOp) {
		for _, n := range names {
			e.CdiDevices = append(e.CdiDevices, &pb.CDIDevice{Name: n})
		}
	})
}

// host has two devices of a class, one of which is for everybody, and one of another class.
func host(name string) []entitlement.Found {
	x, free, y := entitlement.Found{Name: "v/c=x"}, entitlement.Found{Name: "v/c=free", AutoAllow: true}, entitlement.Found{Name: "w/d=y"}
	return map[string][]entitlement.Found{
		"v/c=x": {x}, "v/c=free": {free}, "v/c": {free}, "v/c=*": {free, x}, "w/d=y": {y}, "w/d": {y}, "gpu": {x, y},
	}[name]
}

// TestEveryFieldThatEscalates goes over daemon x client x op for each of them.
func TestEveryFieldThatEscalates(t *testing.T) {
	for _, c := range []struct {
		name, text string
		op         *pb.Op
	}{
		{"network.host", "network.host is not allowed", exec(func(e *pb.ExecOp) { e.Network = pb.NetMode_HOST })},
		{"security.insecure", "security.insecure is not allowed", exec(func(e *pb.ExecOp) { e.Security = pb.SecurityMode_INSECURE })},
		{"device", "device v/c=x is requested by the build but not allowed", devices("v/c=x")},
		{"device", "devices v/c=x, gpu are requested by the build but not allowed", devices("v/c=x", "v/c=free", "gpu")},
		{"device", "device v/c=* is requested by the build but not allowed", devices("v/c=*")},
		{"device", "device w/d is requested by the build but not allowed", exec(func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "w/d", Optional: true}} })},
	} {
		all := []string{"network.host", "security.insecure", "device"}
		none, err := entitlement.Grant(all, nil)
		require.NoError(t, err)
		require.EqualError(t, none.CheckOp(c.op, host), c.text)
		require.Equal(t, codes.PermissionDenied, status.Code(none.CheckOp(c.op, host)))
		granted, err := entitlement.Grant(all, []string{c.name})
		require.NoError(t, err)
		require.NoError(t, granted.CheckOp(c.op, host))
		for _, other := range all {
			if other == c.name {
				continue
			}
			g, err := entitlement.Grant(all, []string{other})
			require.NoError(t, err)
			require.EqualError(t, g.CheckOp(c.op, host), c.text, "%s does not grant %s", other, c.name)
		}
	}
}

// TestOnlyKnownFieldsCanEscalate fails when an op or a request for a container gets a field that nobody has looked at.
func TestOnlyKnownFieldsCanEscalate(t *testing.T) {
	known := map[protoreflect.MessageDescriptor][]string{
		// What is not checked here is the process in its sandbox, or is read from the client's session.
		(&pb.ExecOp{}).ProtoReflect().Descriptor(): {"meta", "mounts", "network", "security", "secretenv", "cdiDevices"},
		(&pb.Meta{}).ProtoReflect().Descriptor():   {"args", "env", "cwd", "user", "proxy_env", "extraHosts", "hostname", "ulimit", "cgroupParent", "removeMountStubsRecursive", "validExitCodes"},
		(&pb.Mount{}).ProtoReflect().Descriptor():  {"input", "selector", "dest", "output", "readonly", "mountType", "TmpfsOpt", "cacheOpt", "secretOpt", "SSHOpt", "resultID", "contentCache"},
		// Containers of frontends, whose processes have no devices.
		(&gatewaypb.NewContainerRequest{}).ProtoReflect().Descriptor(): {"ContainerID", "Mounts", "Network", "platform", "constraints", "extraHosts", "hostname"},
		(&gatewaypb.InitMessage{}).ProtoReflect().Descriptor():         {"ContainerID", "Meta", "Fds", "Tty", "Security", "secretenv"},
	}
	for message, want := range known {
		fields := message.Fields()
		var got []string
		for i := range fields.Len() {
			got = append(got, string(fields.Get(i).Name()))
		}
		require.ElementsMatch(t, want, got, message.FullName())
	}
}

func TestDeviceGrantsCanBeNarrow(t *testing.T) {
	for grant, tc := range map[string]struct{ allowed, refused []string }{
		"device=v/c=x":          {[]string{"v/c=x", "v/c=*", "v/c"}, []string{"w/d", "gpu"}},
		"device=v/c":            {[]string{"v/c=x", "v/c=*", "v/c"}, []string{"w/d", "gpu"}},
		"device=v/c=*":          {[]string{"v/c=x", "v/c=*", "v/c"}, []string{"w/d", "gpu"}},
		"device=gpu":            {[]string{"gpu"}, []string{"v/c=x", "w/d"}},
		"device=w/d=y,alias=my": {[]string{"w/d"}, []string{"v/c=x", "gpu"}},
		"device=v/c=free":       {[]string{"v/c", "v/c=free"}, []string{"v/c=x", "v/c=*"}},
	} {
		g, err := entitlement.Grant([]string{"device"}, []string{grant})
		require.NoError(t, err)
		for _, name := range tc.allowed {
			require.NoError(t, g.CheckOp(devices(name), host), "%s, %s", grant, name)
		}
		for _, name := range tc.refused {
			require.EqualError(t, g.CheckOp(devices(name), host), "device "+name+" is requested by the build but not allowed", grant)
		}
	}
}

func TestAnAliasStandsForADevice(t *testing.T) {
	g, err := entitlement.Grant([]string{"device"}, []string{"device", "device=v/c=x,alias=mine"})
	require.NoError(t, err)
	require.Equal(t, "v/c=x", g.DeviceOf("mine"))
	require.Equal(t, "other", g.DeviceOf("other"))
	require.Empty(t, g.DeviceOf(""))
}

func TestDevicesThatAreNotThere(t *testing.T) {
	var g entitlement.Grants
	err := g.CheckOp(devices("v/c=none"), host)
	require.EqualError(t, err, `required device "v/c=none" is not registered`)
	require.Equal(t, codes.NotFound, status.Code(err))
	require.NoError(t, g.CheckOp(exec(func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "v/c=none", Optional: true}} }), host))
	// What was granted may be in the cache, or be there when the step runs.
	g, err = entitlement.Grant([]string{"device"}, []string{"device"})
	require.NoError(t, err)
	require.NoError(t, g.CheckOp(devices("v/c=none"), host))
}

func TestOtherOpsAndUnknownModes(t *testing.T) {
	var g entitlement.Grants
	require.NoError(t, g.CheckOp(nil, host))
	require.NoError(t, g.CheckOp(&pb.Op{Op: &pb.Op_File{}}, host))
	require.NoError(t, g.CheckOp(exec(func(e *pb.ExecOp) { e.Network = pb.NetMode_NONE }), host))
	require.ErrorContains(t, g.Check(9, 0), "unknown network mode")
	require.ErrorContains(t, g.Check(0, 9), "invalid security mode")
}
