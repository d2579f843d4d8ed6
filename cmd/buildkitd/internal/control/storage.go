package control

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/gc"
)

// DiskUsage lists what is stored.
func (c *Controller) DiskUsage(ctx context.Context, req *controlpb.DiskUsageRequest) (*controlpb.DiskUsageResponse, error) {
	records, err := c.cfg.Storage.DiskUsage(ctx, req.GetFilter())
	if err != nil {
		return nil, err
	}
	unusedSince := time.Now().Add(-time.Duration(req.GetAgeLimit()))
	resp := &controlpb.DiskUsageResponse{}
	for _, u := range records {
		if req.GetAgeLimit() > 0 && u.LastUsedAt != nil && u.LastUsedAt.After(unusedSince) {
			continue
		}
		record := encodeUsage(u)
		record.RecordType = string(u.Type)
		if record.RecordType == "" {
			record.RecordType = string(cache.Regular)
		}
		record.Shared = u.Shared
		resp.Record = append(resp.Record, record)
	}
	return resp, nil
}

// Prune deletes what is stored and not used, and tells each record that it deleted.
func (c *Controller) Prune(req *controlpb.PruneRequest, stream controlpb.Control_PruneServer) error {
	for _, n := range []int64{req.GetKeepDuration(), req.GetReservedSpace(), req.GetMaxUsedSpace(), req.GetMinFreeSpace()} {
		if n < 0 {
			return invalid("prune request with a negative bound: %d", n)
		}
	}
	policy := gc.Policy{
		All:           req.GetAll(),
		Filters:       req.GetFilter(),
		KeepDuration:  time.Duration(req.GetKeepDuration()),
		ReservedSpace: req.GetReservedSpace(),
		MaxUsedSpace:  req.GetMaxUsedSpace(),
		MinFreeSpace:  req.GetMinFreeSpace(),
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	var failure error
	err := c.cfg.Storage.Prune(ctx, []gc.Policy{policy}, func(u cache.Usage) {
		if failure == nil {
			if failure = stream.Send(encodeUsage(u)); failure != nil {
				cancel(failure)
			}
		}
	})
	return cmp.Or(failure, err)
}

// encodeUsage leaves out the type and whether the record is shared: they are not told of records
// that are gone.
func encodeUsage(u cache.Usage) *controlpb.UsageRecord {
	var lastUsed *timestamppb.Timestamp
	if u.LastUsedAt != nil {
		lastUsed = timestamppb.New(*u.LastUsedAt)
	}
	return &controlpb.UsageRecord{
		ID:          u.ID,
		Mutable:     u.Mutable,
		InUse:       u.InUse,
		Size:        u.Size,
		Parents:     u.Parents,
		CreatedAt:   timestamppb.New(u.CreatedAt),
		LastUsedAt:  lastUsed,
		UsageCount:  int64(u.UsageCount),
		Description: u.Description,
	}
}
