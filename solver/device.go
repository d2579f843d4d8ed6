package solver

import (
	"github.com/openbuildkit/buildkit/api/entitlement"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// devices returns the devices that a name stands for.
func (s *Solver) devices(name string) []entitlement.Found {
	var out []entitlement.Found
	for _, d := range s.cfg.Worker.Devices.Find(name) {
		out = append(out, entitlement.Found{Name: d.Name, AutoAllow: d.AutoAllow})
	}
	return out
}

// resolveAliases puts the names of devices in the place of the aliases that the build gave them, and
// tells whether there were any.
func (j *job) resolveAliases(devices []*pb.CDIDevice) bool {
	changed := false
	for _, d := range devices {
		if name := j.grants.DeviceOf(d.GetName()); d != nil && name != d.Name {
			d.Name = name
			changed = true
		}
	}
	return changed
}

// CheckOp returns an error if the build may not run an op as the host is now. Ops with devices ask
// again when they run: what a name stands for may have changed.
func (j *job) CheckOp(op *pb.Op) error { return j.grants.CheckOp(op, j.solver.devices) }
