package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

// UsageInfo is a record of a daemon's storage. Its JSON form is part of what buildctl prints.
type UsageInfo struct {
	ID      string `json:"id"`
	Mutable bool   `json:"mutable"`
	InUse   bool   `json:"inUse"`
	// Size is in bytes, without what parents hold.
	Size      int64     `json:"size"`
	CreatedAt time.Time `json:"createdAt"`
	// LastUsedAt is nil if the record was never used.
	LastUsedAt  *time.Time `json:"lastUsedAt"`
	UsageCount  int        `json:"usageCount"`
	Parents     []string   `json:"parents"`
	Description string     `json:"description"`
	RecordType  string     `json:"recordType"`
	// Shared records belong to something else as well, which keeps them from being freed.
	Shared bool `json:"shared"`
}

// DiskUsageOpt narrows DiskUsage.
type DiskUsageOpt struct {
	// Filters are containerd filter expressions; a record must match one of them.
	Filters []string
	// MinAge leaves out records used since; 0 leaves out none.
	MinAge time.Duration
}

// DiskUsage lists the records of a daemon's storage by size, then id; nil if there are none.
func (c *Client) DiskUsage(ctx context.Context, opt DiskUsageOpt) ([]UsageInfo, error) {
	resp, err := c.control.DiskUsage(ctx, &controlpb.DiskUsageRequest{
		Filter:   opt.Filters,
		AgeLimit: int64(opt.MinAge),
	})
	if err != nil {
		return nil, callError("failed to call diskusage", err)
	}
	var out []UsageInfo
	for _, r := range resp.GetRecord() {
		out = append(out, decodeUsage(r))
	}
	slices.SortFunc(out, func(a, b UsageInfo) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func decodeUsage(r *controlpb.UsageRecord) UsageInfo {
	u := UsageInfo{
		ID:          r.GetID(),
		Mutable:     r.GetMutable(),
		InUse:       r.GetInUse(),
		Size:        r.GetSize(),
		CreatedAt:   r.GetCreatedAt().AsTime(),
		UsageCount:  int(r.GetUsageCount()),
		Parents:     r.GetParents(),
		Description: r.GetDescription(),
		RecordType:  r.GetRecordType(),
		Shared:      r.GetShared(),
	}
	if r.GetLastUsedAt() != nil {
		t := r.GetLastUsedAt().AsTime()
		u.LastUsedAt = &t
	}
	return u
}

// PruneOpt says what Prune frees. Spaces are bytes; 0 is no rule.
type PruneOpt struct {
	// Filters are containerd filter expressions; a record must match one of them.
	Filters []string
	// All includes internal and frontend records, and shared ones.
	All bool
	// KeepDuration keeps records used since.
	KeepDuration  time.Duration
	ReservedSpace int64
	MaxUsedSpace  int64
	MinFreeSpace  int64
}

// Prune frees records that are not in use and calls each, which may be nil, for every one that is
// gone. An error of each ends the listing, and maybe the pruning.
func (c *Client) Prune(ctx context.Context, opt PruneOpt, each func(UsageInfo) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.control.Prune(ctx, &controlpb.PruneRequest{
		Filter:        opt.Filters,
		All:           opt.All,
		KeepDuration:  int64(opt.KeepDuration),
		ReservedSpace: opt.ReservedSpace,
		MaxUsedSpace:  opt.MaxUsedSpace,
		MinFreeSpace:  opt.MinFreeSpace,
	})
	if err != nil {
		return callError("failed to call prune", err)
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return callError("failed to call prune", err)
		}
		if each != nil {
			if err := each(decodeUsage(r)); err != nil {
				return err
			}
		}
	}
}
