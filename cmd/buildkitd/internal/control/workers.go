package control

import (
	"context"
	"strings"

	"github.com/containerd/containerd/v2/pkg/filters"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	pb "github.com/openbuildkit/buildkit/api/llb"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
	"github.com/openbuildkit/buildkit/cache/gc"
	"github.com/openbuildkit/buildkit/worker"
)

// ListWorkers returns the workers that match any of the filters, all if there are none. The first
// one is the default.
func (c *Controller) ListWorkers(_ context.Context, req *controlpb.ListWorkersRequest) (*controlpb.ListWorkersResponse, error) {
	filter, err := filters.ParseAll(req.GetFilter()...)
	if err != nil {
		return nil, invalid("failed to parse worker filters %v: %v", req.GetFilter(), err)
	}
	resp := &controlpb.ListWorkersResponse{}
	for _, w := range c.cfg.Workers() {
		if filter.Match(workerFields(w)) {
			resp.Record = append(resp.Record, w)
		}
	}
	return resp, nil
}

// WorkerRecord describes a worker as it is now and the policies of its collector.
func WorkerRecord(w *worker.Worker, policies []gc.Policy, version *workerspb.BuildkitVersion) *workerspb.WorkerRecord {
	record := &workerspb.WorkerRecord{ID: w.ID, Labels: w.Labels, BuildkitVersion: version}
	for _, p := range w.Platforms.List() {
		record.Platforms = append(record.Platforms, pb.FromSpec(p))
	}
	for _, d := range w.Devices.List() {
		record.CDIDevices = append(record.CDIDevices, &workerspb.CDIDevice{
			Name: d.Name, AutoAllow: d.AutoAllow, Annotations: d.Annotations,
		})
	}
	for _, p := range policies {
		record.GCPolicy = append(record.GCPolicy, &workerspb.GCPolicy{
			All:           p.All,
			Filters:       p.Filters,
			KeepDuration:  int64(p.KeepDuration),
			ReservedSpace: p.ReservedSpace,
			MaxUsedSpace:  p.MaxUsedSpace,
			MinFreeSpace:  p.MinFreeSpace,
		})
	}
	return record
}

// workerFields are the fields of a worker that a filter can name: id and labels.<key>.
func workerFields(w *workerspb.WorkerRecord) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		switch {
		case len(path) == 1 && path[0] == "id":
			return w.GetID(), w.GetID() != ""
		case len(path) > 1 && path[0] == "labels":
			value, ok := w.GetLabels()[strings.Join(path[1:], ".")]
			return value, ok
		}
		return "", false
	})
}
