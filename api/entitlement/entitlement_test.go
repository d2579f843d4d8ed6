package entitlement_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/entitlement"
	pb "github.com/openbuildkit/buildkit/api/llb"
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
	_, err := entitlement.Grant(nil, []string{"network.host"})
	require.EqualError(t, err, "granting entitlement network.host is not allowed by build daemon configuration")
	_, err = entitlement.Grant([]string{"network.host"}, []string{"network.host", "everything"})
	require.EqualError(t, err, "unknown entitlement everything")
}

func exec(change func(*pb.ExecOp)) *pb.Op {
	e := &pb.ExecOp{}
	change(e)
	return &pb.Op{Op: &pb.Op_Exec{Exec: e}}
}

// TestEveryFieldThatEscalates goes over daemon x client x op for each of them.
func TestEveryFieldThatEscalates(t *testing.T) {
	for _, c := range []struct {
		name, text string
		op         *pb.Op
	}{
		{"network.host", "network.host is not allowed", exec(func(e *pb.ExecOp) { e.Network = pb.NetMode_HOST })},
		{"security.insecure", "security.insecure is not allowed", exec(func(e *pb.ExecOp) { e.Security = pb.SecurityMode_INSECURE })},
		{"device", "device v/c=x is requested by the build but not allowed", exec(func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "v/c=x"}} })},
		{"device", "devices a, b are requested by the build but not allowed", exec(func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "a"}, {Name: "b", Optional: true}} })},
	} {
		all := []string{"network.host", "security.insecure", "device"}
		none, err := entitlement.Grant(all, nil)
		require.NoError(t, err)
		require.EqualError(t, none.CheckOp(c.op), c.text)
		granted, err := entitlement.Grant(all, []string{c.name})
		require.NoError(t, err)
		require.NoError(t, granted.CheckOp(c.op))
		for _, other := range all {
			if other == c.name {
				continue
			}
			g, err := entitlement.Grant(all, []string{other})
			require.NoError(t, err)
			require.EqualError(t, g.CheckOp(c.op), c.text, "%s does not grant %s", other, c.name)
		}
	}
}

func TestDeviceGrantsCanBeNarrow(t *testing.T) {
	g, err := entitlement.Grant([]string{"device"}, []string{"device=v/c=x,alias=mine"})
	require.NoError(t, err)
	require.NoError(t, g.CheckDevices([]*pb.CDIDevice{{Name: "v/c=x"}, {Name: "mine"}}))
	require.Error(t, g.CheckDevices([]*pb.CDIDevice{{Name: "v/c=y"}}))
}

func TestOtherOpsAndUnknownModes(t *testing.T) {
	var g entitlement.Grants
	require.NoError(t, g.CheckOp(nil))
	require.NoError(t, g.CheckOp(&pb.Op{Op: &pb.Op_File{}}))
	require.NoError(t, g.CheckOp(exec(func(e *pb.ExecOp) { e.Network = pb.NetMode_NONE })))
	require.ErrorContains(t, g.Check(9, 0), "unknown network mode")
	require.ErrorContains(t, g.Check(0, 9), "invalid security mode")
}
