package graph_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/graph"
)

func TestTheMoreRelaxedLimitWins(t *testing.T) {
	type limits = pb.LinuxResources
	for name, tc := range map[string]struct{ a, b, want *limits }{
		"none and any":       {nil, &limits{Memory: 1}, nil},
		"none and none":      {nil, nil, nil},
		"memory":             {&limits{Memory: 1 << 20}, &limits{Memory: 2 << 20}, &limits{Memory: 2 << 20}},
		"unlimited memory":   {&limits{Memory: 1 << 20}, &limits{CpuShares: 2}, &limits{}},
		"unlimited swap":     {&limits{MemorySwap: -1}, &limits{MemorySwap: 5}, &limits{MemorySwap: -1}},
		"swap":               {&limits{MemorySwap: 6}, &limits{MemorySwap: 5}, &limits{MemorySwap: 6}},
		"shares":             {&limits{CpuShares: 512}, &limits{CpuShares: 1024}, &limits{CpuShares: 1024}},
		"quota of a period":  {&limits{CpuQuota: 50, CpuPeriod: 100}, &limits{CpuQuota: 60, CpuPeriod: 200}, &limits{CpuQuota: 50, CpuPeriod: 100}},
		"usual period":       {&limits{CpuQuota: 50_000}, &limits{CpuQuota: 40, CpuPeriod: 100}, &limits{CpuQuota: 50_000}},
		"no quota":           {&limits{CpuQuota: 50, CpuPeriod: 100}, &limits{CpuPeriod: 7}, &limits{CpuPeriod: 7}},
		"large quotas":       {&limits{CpuQuota: 1 << 62, CpuPeriod: 1 << 63}, &limits{CpuQuota: 1<<62 + 1, CpuPeriod: 1 << 63}, &limits{CpuQuota: 1<<62 + 1, CpuPeriod: 1 << 63}},
		"processors":         {&limits{CpusetCpus: "0-3,7"}, &limits{CpusetCpus: "7,4"}, &limits{CpusetCpus: "0-3,4,7"}},
		"all processors":     {&limits{CpusetCpus: "0-3,7"}, &limits{CpusetMems: "0"}, &limits{}},
		"nodes of memory":    {&limits{CpusetMems: "0"}, &limits{CpusetMems: "1"}, &limits{CpusetMems: "0,1"}},
		"each on its own":    {&limits{Memory: 1, CpuShares: 9}, &limits{Memory: 2, CpuShares: 8}, &limits{Memory: 2, CpuShares: 9}},
		"the same":           {&limits{Memory: 1, CpusetCpus: "1"}, &limits{Memory: 1, CpusetCpus: "1"}, &limits{Memory: 1, CpusetCpus: "1"}},
		"of an empty period": {&limits{CpuQuota: 1, CpuPeriod: 0}, &limits{CpuQuota: 2, CpuPeriod: 0}, &limits{CpuQuota: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, got := range []*limits{graph.Relaxed(tc.a, tc.b), graph.Relaxed(tc.b, tc.a)} {
				require.True(t, proto.Equal(tc.want, got), "%v", got)
				require.Equal(t, tc.want == nil, got == nil)
			}
		})
	}
}
