package runc

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseOOM(t *testing.T) {
	for text, want := range map[string]uint64{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n":               3,
		"low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n": 1,
		"oom_kill 0": 0,
	} {
		got, err := parseOOM(strings.NewReader(text))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := parseOOM(strings.NewReader("oom_kill_disable 1\n"))
	require.Error(t, err)
}

func TestParseCgroup(t *testing.T) {
	got := parseCgroup(strings.NewReader("9:name=systemd:/s\n4:cpu,memory:/a/b:c\n0::/v2\nbroken\n"))
	require.Equal(t, cgroup{v1: "/a/b:c", v2: "/v2"}, got)
}
