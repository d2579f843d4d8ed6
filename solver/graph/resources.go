package graph

import (
	"math/big"
	"slices"
	"strings"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Relaxed returns the limits of a vertex that two builds share, who set a and b: of each limit the one
// that leaves more. No limits, nil, leave the most. Neither argument is changed.
func Relaxed(a, b *pb.LinuxResources) *pb.LinuxResources {
	if a == nil || b == nil {
		return nil
	}
	out := &pb.LinuxResources{
		Memory:     relaxed(a.Memory, b.Memory),
		MemorySwap: relaxed(a.MemorySwap, b.MemorySwap),
		CpuShares:  relaxed(a.CpuShares, b.CpuShares),
		CpusetCpus: union(a.CpusetCpus, b.CpusetCpus),
		CpusetMems: union(a.CpusetMems, b.CpusetMems),
	}
	cpu := a
	if leavesMore(b, a) {
		cpu = b
	}
	out.CpuQuota, out.CpuPeriod = cpu.CpuQuota, cpu.CpuPeriod
	return out
}

// relaxed returns the larger of two limits; 0, and below it, is no limit.
func relaxed[T int64 | uint64](a, b T) T {
	if a <= 0 || b <= 0 {
		return min(a, b)
	}
	return max(a, b)
}

// leavesMore compares the shares of time that two quotas are of their periods.
func leavesMore(a, b *pb.LinuxResources) bool {
	switch {
	case b.CpuQuota <= 0:
		return false
	case a.CpuQuota <= 0:
		return true
	}
	return share(a).Cmp(share(b)) > 0
}

func share(r *pb.LinuxResources) *big.Rat {
	const usual = 100_000 // microseconds, where none is set
	period := new(big.Int).SetUint64(r.CpuPeriod)
	if r.CpuPeriod == 0 {
		period.SetUint64(usual)
	}
	return new(big.Rat).SetFrac(big.NewInt(r.CpuQuota), period)
}

// union joins two lists of numbers and ranges, such as 0-3,7; empty is all. Whoever reads the list lets
// ranges overlap.
func union(a, b string) string {
	if a == "" || b == "" {
		return ""
	}
	parts := strings.Split(a+","+b, ",")
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ",")
}
