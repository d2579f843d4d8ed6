package passwd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker/internal/beneath"
)

const (
	users  = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\nbig:x:4294967296:0::/:/bin/sh\nneg:x:-5:0::/:/bin/sh\n"
	groups = "root:x:0:\nwheel:x:10:app\nstaff:x:50:app\napp:x:1000:\nbig:x:99999999999:\n"
)

func tree(t testing.TB, passwd, group string) *beneath.Root {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwd), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etc/group"), []byte(group), 0o644))
	r, err := beneath.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

func TestProcess(t *testing.T) {
	r := tree(t, users, groups)
	for spec, want := range map[string]User{
		"":          {0, 0, []uint32{0}},
		"root":      {0, 0, []uint32{0}},
		"app":       {1000, 1000, []uint32{1000, 10, 50}},
		"app:staff": {1000, 50, []uint32{50}},
		"1000":      {1000, 1000, []uint32{1000, 10, 50}},
		"7:8":       {7, 8, []uint32{8}},
		"4242":      {4242, 0, []uint32{0}},
	} {
		got, err := Process(r, spec)
		require.NoError(t, err, spec)
		require.Equal(t, want, got, spec)
	}
	for spec, want := range map[string]string{
		"ghost":     "unable to find user ghost: no matching entries in passwd file",
		"app:ghost": "unable to find group ghost: no matching entries in group file",
		"big":       "user big: id 4294967296 is out of range",
		"neg":       "user neg: id -5 is out of range",
	} {
		_, err := Process(r, spec)
		require.EqualError(t, err, want)
	}
}

func TestLookup(t *testing.T) {
	r := tree(t, users, groups)
	uid, gid, ok, err := LookupUser(r, "app")
	require.NoError(t, err)
	require.Equal(t, []any{uint32(1000), uint32(1000), true}, []any{uid, gid, ok})
	_, _, ok, err = LookupUser(r, "ghost")
	require.NoError(t, err)
	require.False(t, ok)
	_, _, _, err = LookupUser(r, "big")
	require.EqualError(t, err, "user big: an id is out of range")
	gid, ok, err = LookupGroup(r, "staff")
	require.NoError(t, err)
	require.Equal(t, []any{uint32(50), true}, []any{gid, ok})
	_, _, err = LookupGroup(r, "big")
	require.EqualError(t, err, "group big: the id is out of range")
}

func TestATreeWithoutAccountsHasNumbersOnly(t *testing.T) {
	r, err := beneath.Open(t.TempDir())
	require.NoError(t, err)
	defer r.Close()
	u, err := Process(r, "12:34")
	require.NoError(t, err)
	require.Equal(t, User{12, 34, []uint32{34}}, u)
	_, err = Process(r, "app")
	require.ErrorContains(t, err, "unable to find user app")
}

func TestHugeFilesAreRefused(t *testing.T) {
	r := tree(t, strings.Repeat("#\n", maxFile), "")
	_, err := Process(r, "app")
	require.EqualError(t, err, "read /etc/passwd: file too large")
}

func TestLinesMayBeAsLongAsTheFile(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	members := strings.Repeat("somebody,", 100_000)
	r := tree(t,
		"junk"+long+":x:1:1\n"+long+"\napp:x:1000:1000:"+long+":/:/bin/sh\nlast:x:7:8::/:/bin/sh\n",
		"many:x:10:"+members+"app,"+members+"app\n"+long+":x:11:app\n#"+members+"app\nnone:x:13:"+long+"app\nlast:x:12:"+long+",last,"+members[:100])
	for name, want := range map[string]User{
		"app":      {1000, 1000, []uint32{1000, 10}},
		"last":     {7, 8, []uint32{8, 12}},
		"app:many": {1000, 10, []uint32{10}},
		"last:12":  {7, 12, []uint32{12}},
	} {
		u, err := Process(r, name)
		require.NoError(t, err)
		require.Equal(t, want, u, name)
	}
	uid, gid, ok, err := LookupUser(r, "app")
	require.NoError(t, err)
	require.Equal(t, []any{uint32(1000), uint32(1000), true}, []any{uid, gid, ok})
	gid, ok, err = LookupGroup(r, "many")
	require.NoError(t, err)
	require.Equal(t, []any{uint32(10), true}, []any{gid, ok})
	_, ok, err = LookupGroup(r, "ghost")
	require.NoError(t, err)
	require.False(t, ok)
}

// FuzzShorten holds that what is found in lists of long lines is what was in them.
func FuzzShorten(f *testing.F) {
	f.Add([]byte("g:x:1:a,b,c"), uint16(1))
	f.Add([]byte(":,:,:,,"), uint16(maxLine))
	f.Fuzz(func(t *testing.T, line []byte, times uint16) {
		group := append(append([]byte("g:x:7:"), bytes.Repeat(line, min(int(times), maxLine))...), []byte(",me,you")...)
		if bytes.ContainsAny(line, "\n\r") || len(line) > 100 {
			return
		}
		short := shortGroups(group)
		require.LessOrEqual(t, len(short), 2*len(group))
		for l := range bytes.Lines(short) {
			require.LessOrEqual(t, len(l), maxLine+1)
		}
		if bytes.Contains(line, []byte(":")) {
			return // there are more fields, and nobody is in the group
		}
		u, err := parse([]byte("me:x:5:6:"), short, "me")
		require.NoError(t, err)
		require.Equal(t, User{5, 6, []uint32{6, 7}}, u)
	})
}

func TestAUserHasNoMoreGroupsThanAProcess(t *testing.T) {
	var most strings.Builder
	for i := range maxGroups {
		fmt.Fprintf(&most, "g%d:x:%d:app,other\n", i, i)
	}
	u, err := Process(tree(t, users, most.String()), "app")
	require.NoError(t, err)
	require.Len(t, u.Groups, maxGroups)
	_, err = Process(tree(t, users, most.String()+"last:x:70000:app\n"), "app")
	require.EqualError(t, err, "user app: 65537 groups are more than the 65536 that a process may have")
	// Without membership there may be as many as the file holds.
	u, err = Process(tree(t, users, most.String()+most.String()), "root")
	require.NoError(t, err)
	require.Equal(t, []uint32{0}, u.Groups)
}

func FuzzProcess(f *testing.F) {
	f.Add([]byte(users), []byte(groups), "app")
	f.Add([]byte("a:b"), []byte(":::::"), "0:0:0")
	f.Add([]byte("\x00:x:1:1\n"), []byte(strings.Repeat("x", 70000)), "\x00")
	f.Fuzz(func(t *testing.T, users, groups []byte, spec string) {
		u, err := parse(shortUsers(users), shortGroups(groups), spec)
		if err != nil {
			require.Zero(t, u)
			return
		}
		require.NotEmpty(t, u.Groups)
		require.Equal(t, u.GID, u.Groups[0])
	})
}
