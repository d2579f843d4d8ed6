// Package entitlement decides what a build may ask of its daemon beyond a sandbox: the network of
// the host, processes without confinement, devices.
//
// Three have to agree: the daemon allows a name at all, the client grants it to its build, and an
// op asks for it. The package is pure; the daemon uses it for ops and containers alike, the
// client to refuse misspelled names at once.
package entitlement

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
)

// The names of entitlements.
const (
	NetworkHost      = "network.host"
	SecurityInsecure = "security.insecure"
	Device           = "device"
)

// Entitlement is one parsed grant.
type Entitlement struct {
	// Name is one of the constants.
	Name string
	// Device limits a grant of Device to one device or class; empty is any.
	Device string
	// Alias is another name by which ops may ask for the device.
	Alias string
}

// Parse reads a grant as users spell it: a name, or device=<name>[,alias=<name>].
func Parse(s string) (Entitlement, error) {
	name, rest, limited := strings.Cut(s, "=")
	switch {
	case (s == NetworkHost || s == SecurityInsecure || s == Device):
		return Entitlement{Name: s}, nil
	case name == Device && limited && rest != "":
		return parseDevice(s, rest)
	}
	return Entitlement{}, status.New(codes.InvalidArgument, "unknown entitlement "+s)
}

func parseDevice(whole, rest string) (Entitlement, error) {
	fields := strings.Split(rest, ",")
	e := Entitlement{Name: Device, Device: fields[0]}
	for _, f := range fields[1:] {
		alias, ok := strings.CutPrefix(f, "alias=")
		if !ok || alias == "" || e.Alias != "" {
			return Entitlement{}, status.New(codes.InvalidArgument, "unknown entitlement "+whole)
		}
		e.Alias = alias
	}
	// An empty device, or a field in its place, names none.
	if e.Device == "" || strings.Contains(e.Device, "alias=") {
		return Entitlement{}, status.New(codes.InvalidArgument, "unknown entitlement "+whole)
	}
	return e, nil
}

// Found is a device of the host.
type Found struct {
	// Name is vendor/class=name.
	Name string
	// AutoAllow tells that everybody may use it.
	AutoAllow bool
}

// Devices returns the devices of the host that a name stands for, nil if there is none.
type Devices func(name string) []Found

// Grants is what one build was granted. The zero value is nothing.
type Grants struct{ all []Entitlement }

// Grant returns what a client grants its build, if the daemon allows all of it.
func Grant(daemon, client []string) (Grants, error) {
	allowed := map[string]bool{}
	for _, s := range daemon {
		e, err := Parse(s)
		if err != nil {
			return Grants{}, err
		}
		allowed[e.Name] = true
	}
	var g Grants
	for _, s := range client {
		e, err := Parse(s)
		if err != nil {
			return Grants{}, err
		}
		if !allowed[e.Name] {
			return Grants{}, status.New(codes.PermissionDenied,
				fmt.Sprintf("granting entitlement %s is not allowed by build daemon configuration", e.Name))
		}
		g.all = append(g.all, e)
	}
	return g, nil
}

func (g Grants) has(name string) bool {
	return slices.ContainsFunc(g.all, func(e Entitlement) bool { return e.Name == name })
}

// hasDevice tells whether a device was granted by its name, or with all of its class.
func (g Grants) hasDevice(name string) bool {
	kind, _, _ := strings.Cut(name, "=")
	return slices.ContainsFunc(g.all, func(e Entitlement) bool {
		return e.Name == Device && (e.Device == "" || e.Device == name || e.Device == kind || e.Device == kind+"=*")
	})
}

// DeviceOf returns the name of the device that was granted under an alias, or else the name itself.
func (g Grants) DeviceOf(name string) string {
	for _, e := range g.all {
		if e.Alias != "" && e.Alias == name {
			return e.Device
		}
	}
	return name
}

// CheckOp returns an error if an op asks for what was not granted. An op without a payload asks
// for nothing. Aliases of devices were replaced, see DeviceOf.
func (g Grants) CheckOp(op *pb.Op, devices Devices) error {
	exec := op.GetExec()
	if exec == nil {
		return nil
	}
	if err := g.Check(exec.Network, exec.Security); err != nil {
		return err
	}
	return g.CheckDevices(exec.CdiDevices, devices)
}

// Check returns an error if a network or security mode is unknown or was not granted.
func (g Grants) Check(network pb.NetMode, security pb.SecurityMode) error {
	switch network {
	case pb.NetMode_UNSET, pb.NetMode_NONE:
	case pb.NetMode_HOST:
		if !g.has(NetworkHost) {
			return notAllowed(NetworkHost)
		}
	default:
		return status.New(codes.InvalidArgument, fmt.Sprintf("unknown network mode %d", network))
	}
	switch security {
	case pb.SecurityMode_SANDBOX:
	case pb.SecurityMode_INSECURE:
		if !g.has(SecurityInsecure) {
			return notAllowed(SecurityInsecure)
		}
	default:
		return status.New(codes.InvalidArgument, fmt.Sprintf("invalid security mode %d", security))
	}
	return nil
}

// CheckDevices returns an error that names the devices which were not granted and are not allowed for
// everybody. Optional ones count as well if they are there. A device that is neither there nor granted
// is refused for not being there.
func (g Grants) CheckDevices(devices []*pb.CDIDevice, find Devices) error {
	var refused []string
	for _, d := range devices {
		if g.hasDevice(d.GetName()) {
			continue
		}
		found := find(d.GetName())
		if len(found) == 0 && !d.GetOptional() {
			return status.New(codes.NotFound, fmt.Sprintf("required device %q is not registered", d.GetName()))
		}
		if slices.ContainsFunc(found, func(f Found) bool { return !f.AutoAllow && !g.hasDevice(f.Name) }) {
			refused = append(refused, d.GetName())
		}
	}
	switch len(refused) {
	case 0:
		return nil
	case 1:
		return status.New(codes.PermissionDenied, fmt.Sprintf("device %s is requested by the build but not allowed", refused[0]))
	default:
		return status.New(codes.PermissionDenied, fmt.Sprintf("devices %s are requested by the build but not allowed", strings.Join(refused, ", ")))
	}
}

func notAllowed(name string) error {
	return status.New(codes.PermissionDenied, name+" is not allowed")
}
