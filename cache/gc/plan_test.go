package gc

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// rec is a record of 100 bytes that the filters select, used so many hours ago.
func rec(id, parent string, hours int) Record {
	r := Record{ID: id, Size: 100, LastUsed: ago(time.Duration(hours) * time.Hour), UsageCount: 1, Match: true}
	if parent != "" {
		r.Parents = []string{parent}
	}
	return r
}

func TestPlan(t *testing.T) {
	for name, tt := range map[string]struct {
		records []Record
		policy  Policy
		disk    Disk
		want    []string
		left    int64
	}{
		"without limits everything goes, children before parents": {
			records: []Record{rec("a", "", 3), rec("b", "a", 2), rec("c", "b", 1)},
			want:    []string{"c", "b", "a"},
		},
		"what is in use stays with all below it": {
			records: []Record{rec("a", "", 3), func() Record { r := rec("b", "a", 2); r.InUse = true; return r }(), rec("c", "b", 1), rec("d", "", 1)},
			want:    []string{"c", "d"},
			left:    200,
		},
		"the oldest goes first until the limit is met": {
			records: []Record{rec("new", "", 1), rec("old", "", 30), rec("middle", "", 10)},
			policy:  Policy{MaxUsedSpace: 150},
			want:    []string{"old", "middle"},
			left:    100,
		},
		"what is used often stays longer": {
			records: []Record{
				{ID: "often", Size: 100, LastUsed: ago(3 * time.Hour), UsageCount: 50, Match: true},
				{ID: "once", Size: 100, LastUsed: ago(2 * time.Hour), UsageCount: 1, Match: true},
				{ID: "new", Size: 100, LastUsed: ago(time.Hour), UsageCount: 20, Match: true},
			},
			policy: Policy{MaxUsedSpace: 250},
			want:   []string{"once"},
			left:   200,
		},
		"below the limit nothing goes": {
			records: []Record{rec("a", "", 3)},
			policy:  Policy{MaxUsedSpace: 100},
			left:    100,
		},
		"the reserved space is kept though the disk is full": {
			records: []Record{rec("a", "", 3), rec("b", "", 2), rec("c", "", 1)},
			policy:  Policy{ReservedSpace: 200, MinFreeSpace: 1000},
			disk:    Disk{Total: 2000, Free: 0},
			want:    []string{"a"},
			left:    200,
		},
		"as much goes as is missing on the disk": {
			records: []Record{rec("a", "", 3), rec("b", "", 2), rec("c", "", 1)},
			policy:  Policy{MinFreeSpace: 1000},
			disk:    Disk{Total: 2000, Free: 850},
			want:    []string{"a", "b"},
			left:    100,
		},
		"enough free space is enough": {
			records: []Record{rec("a", "", 3)},
			policy:  Policy{MinFreeSpace: 1000},
			disk:    Disk{Total: 2000, Free: 1000},
			left:    100,
		},
		"the smaller of two limits counts": {
			records: []Record{rec("a", "", 3), rec("b", "", 2), rec("c", "", 1)},
			policy:  Policy{MinFreeSpace: 1000, MaxUsedSpace: 100},
			disk:    Disk{Total: 2000, Free: 950},
			want:    []string{"a", "b"},
			left:    100,
		},
		"what was used lately is kept": {
			records: []Record{rec("a", "", 3), rec("b", "", 1)},
			policy:  Policy{KeepDuration: 2 * time.Hour},
			want:    []string{"a"},
			left:    100,
		},
		"internal and shared records go with All only": {
			records: []Record{{ID: "i", Size: 1, Internal: true, Match: true}, {ID: "s", Size: 1, Shared: true, Match: true}},
			left:    1,
		},
		"All takes them too, shared bytes are not counted": {
			records: []Record{{ID: "i", Size: 1, Internal: true, Match: true}, {ID: "s", Size: 1, Shared: true, Match: true}},
			policy:  Policy{All: true},
			want:    []string{"i", "s"},
		},
		"filters narrow it": {
			records: []Record{rec("a", "", 1), {ID: "b", Size: 5}},
			want:    []string{"a"},
			left:    5,
		},
	} {
		t.Run(name, func(t *testing.T) {
			res := Plan(tt.records, tt.policy, tt.disk, now)
			require.Equal(t, tt.want, res.Remove)
			require.Equal(t, tt.left, res.Left)
			require.Equal(t, len(tt.records)-len(tt.want), res.Kept)
		})
	}
}

func TestPlanOfManyRecordsIsFast(t *testing.T) {
	records := make([]Record, 100_000)
	for i := range records {
		records[i] = rec(fmt.Sprint(i), "", i)
		if i%100 != 0 {
			records[i].Parents = []string{fmt.Sprint(i - 1)}
		}
	}
	start := time.Now()
	res := Plan(records, Policy{MaxUsedSpace: 1}, Disk{}, now)
	require.Len(t, res.Remove, len(records))
	require.Less(t, time.Since(start), 10*time.Second)
}

func TestExecuteStopsAtAnError(t *testing.T) {
	res := Result{Remove: make([]string, batch*3)}
	calls := 0
	full := errors.New("disk full")
	err := Execute(t.Context(), res, func(context.Context, []string) error {
		if calls++; calls == 2 {
			return full
		}
		return nil
	})
	require.ErrorIs(t, err, full)
	require.Equal(t, 2, calls)
	gone := errors.New("caller has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	require.ErrorIs(t, Execute(ctx, res, nil), gone)
}
