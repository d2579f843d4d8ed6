package usage

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return root
}

// shape returns the JSON of a sample, without its time.
func shape(t *testing.T, s *Sample) string {
	t.Helper()
	require.WithinDuration(t, time.Now(), s.Timestamp, time.Minute)
	s.Timestamp = time.Time{}
	text, err := json.Marshal(s)
	require.NoError(t, err)
	return string(text)
}

func TestACgroupOfVersion2IsRead(t *testing.T) {
	root := tree(t, map[string]string{
		"cgroup.controllers":      "cpu io memory pids\n",
		"x/y/cpu.stat":            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
		"x/y/cpu.pressure":        "some avg10=1.50 avg60=0.25 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
		"x/y/memory.stat":         "anon 1\nfile 2\nkernel 3\npagetables 4\npgfault 5\nodd\n",
		"x/y/memory.peak":         "1000\n",
		"x/y/memory.swap.current": "8\n",
		"x/y/memory.events":       "low 0\nhigh 0\nmax 6\noom 2\noom_kill 1\n",
		"x/y/io.stat":             "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=50 dios=60\n",
		"x/y/pids.current":        "2\n",
	})
	require.JSONEq(t, `{
		"timestamp": "0001-01-01T00:00:00Z",
		"cpuStat": {"usageNanos": 30000, "userNanos": 20000, "systemNanos": 10000, "nrPeriods": 4, "nrThrottled": 1, "throttledNanos": 7000,
			"pressure": {"some": {"avg10": 1.5, "avg60": 0.25, "avg300": 0, "total": 99}, "full": {"avg10": 0, "avg60": 0, "avg300": 0, "total": 3}}},
		"memoryStat": {"swapBytes": 8, "anon": 1, "file": 2, "kernel": 3, "pageTables": 4, "pgfault": 5, "peak": 1000,
			"maxEvents": 6, "oomEvents": 2, "oomKillEvents": 1},
		"ioStat": {"readBytes": 11, "writeBytes": 22, "discardBytes": 55, "readIOs": 33, "writeIOs": 44, "discardIOs": 66},
		"pidsStat": {"current": 2}
	}`, shape(t, NewCgroup(root, "z", "/x/y").Read()))
}

func TestACgroupOfVersion1IsRead(t *testing.T) {
	root := tree(t, map[string]string{
		"cpuacct/x/cpuacct.usage":                           "123\n",
		"cpuacct/x/cpuacct.usage_user":                      "100\n",
		"cpuacct/x/cpuacct.usage_sys":                       "23\n",
		"cpu/x/cpu.stat":                                    "nr_periods 4\nnr_throttled 1\nthrottled_time 7\n",
		"memory/x/memory.stat":                              "cache 1\nrss 1\ntotal_cache 2\ntotal_rss 3\ntotal_pgfault 4\ntotal_swap 5\n",
		"memory/x/memory.max_usage_in_bytes":                "1000\n",
		"memory/x/memory.failcnt":                           "6\n",
		"memory/x/memory.oom_control":                       "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		"blkio/x/blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:16 Read 10\n8:0 Total 99\nTotal 99\n",
		"blkio/x/blkio.throttle.io_serviced_recursive":      "8:0 Read 3\n8:0 Write 4\n8:0 Discard 5\n",
		"pids/x/pids.current":                               "2\n",
	})
	require.JSONEq(t, `{
		"timestamp": "0001-01-01T00:00:00Z",
		"cpuStat": {"usageNanos": 123, "userNanos": 100, "systemNanos": 23, "nrPeriods": 4, "nrThrottled": 1, "throttledNanos": 7},
		"memoryStat": {"swapBytes": 5, "anon": 3, "file": 2, "pgfault": 4, "peak": 1000, "maxEvents": 6, "oomKillEvents": 1},
		"ioStat": {"readBytes": 11, "writeBytes": 2, "discardBytes": 0, "readIOs": 3, "writeIOs": 4, "discardIOs": 5},
		"pidsStat": {"current": 2}
	}`, shape(t, NewCgroup(root, "/x", "z").Read()))
	require.Nil(t, NewCgroup(root, "/missing", "").Read())
}

func TestNetworksAreCountedByTheirDifference(t *testing.T) {
	before := &Network{RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 5, TxPackets: 6, TxErrors: 7, TxDropped: 8}
	now := &Network{RxBytes: 11, RxPackets: 22, RxErrors: 33, RxDropped: 44, TxBytes: 55, TxPackets: 66, TxErrors: 77, TxDropped: 88}
	require.Equal(t, &Network{RxBytes: 10, RxPackets: 20, RxErrors: 30, RxDropped: 40, TxBytes: 50, TxPackets: 60, TxErrors: 70, TxDropped: 80}, now.Since(before))
}

func TestLongStepsAreSampledLessOften(t *testing.T) {
	root := tree(t, map[string]string{"pids/x/pids.current": "2\n"})
	synctest.Test(t, func(t *testing.T) {
		var short, long Step
		short.Start(NewCgroup(root, "x", ""), func() *Network { return &Network{RxBytes: 3} })
		<-time.After(interval + time.Millisecond)
		short.Stop()
		short.Stop()
		require.Len(t, short.Samples().Samples, 2, "one after a while and one at the end")
		require.JSONEq(t, `{"timestamp":"0001-01-01T00:00:00Z","pidsStat":{"current":2},"netStat":{"rxBytes":3}}`, shape(t, short.Samples().Samples[1]))

		long.Start(NewCgroup(root, "x", ""), nil)
		begun := time.Now()
		<-time.After(time.Hour + time.Second)
		long.Stop()
		all := long.Samples()
		require.NotNil(t, all.System)
		require.Nil(t, all.Samples[0].Network)
		require.LessOrEqual(t, len(all.Samples), maxSamples)
		require.Greater(t, len(all.Samples), maxSamples/2)
		require.Less(t, all.Samples[0].Timestamp.Sub(begun), time.Minute)
		require.Zero(t, time.Since(all.Samples[len(all.Samples)-1].Timestamp))
		apart := all.Samples[1].Timestamp.Sub(all.Samples[0].Timestamp)
		for i, s := range all.Samples[2 : len(all.Samples)-1] {
			require.Equal(t, apart, s.Timestamp.Sub(all.Samples[i+1].Timestamp))
		}
	})
}

func TestWhatDidNotStartHasNoSamples(t *testing.T) {
	var s *Step
	s.Start(nil, nil)
	s.Sample()
	s.Stop()
	require.Nil(t, s.Samples())
	s = &Step{}
	s.Stop()
	require.Nil(t, s.Samples())
}

func TestTheMachineIsSampled(t *testing.T) {
	var s System
	s.Start()
	s.Start()
	all := s.Samples()
	s.Stop()
	require.Len(t, all, 1)
	require.Positive(t, all[0].CPU.User)
	require.Positive(t, *all[0].Memory.Total)
	require.Positive(t, all[0].Processes.Created)
	require.Len(t, s.Samples(), 1, "no more")
}
