package cache_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
)

// victimRoot is set in the process that is to be killed.
const victimRoot = "CACHE_TEST_VICTIM_ROOT"

// TestMain is also the victim of TestKilledAtAnyTime.
func TestMain(m *testing.M) {
	if root := os.Getenv(victimRoot); root != "" {
		victim(root)
	}
	os.Exit(m.Run())
}

// victim works on a cache until it is killed. A value of each record says what its files are.
func victim(root string) {
	t := &testing.T{}
	e := &env{t: t, ctx: context.Background(), root: root, name: os.Getenv("CACHE_TEST_VICTIM_SNAPSHOTTER")}
	e.open()
	fmt.Println("open")
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	var refs []*cache.Ref
	must := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	for i := 0; ; i++ {
		var parent *cache.Ref
		files := map[string]string{}
		if len(refs) > 0 && rnd.IntN(4) > 0 {
			parent = refs[rnd.IntN(len(refs))]
			must(json.Unmarshal(parent.Value("files"), &files))
		}
		m, err := e.New(e.ctx, parent, cache.Access{}, cache.NewOpt{Retain: rnd.IntN(4) == 0})
		must(err)
		dir, release := upper(t, m)
		name := fmt.Sprintf("f%d", rnd.IntN(6))
		files[name] = fmt.Sprint(os.Getpid(), " ", i)
		must(os.WriteFile(filepath.Join(dir, name), []byte(files[name]), 0o644))
		must(release())
		ref, err := m.Commit(e.ctx)
		must(err)
		know := func(ref *cache.Ref) {
			value, err := json.Marshal(files)
			must(err)
			must(ref.SetValue("files", value, "all"))
			refs = append(refs, ref)
		}
		know(ref)
		if other := refs[rnd.IntN(len(refs))]; rnd.IntN(4) == 0 {
			var more map[string]string
			must(json.Unmarshal(other.Value("files"), &more))
			maps.Copy(files, more)
			merged, err := e.Merge(e.ctx, []*cache.Ref{ref, other}, cache.Description{}, event.Scope{})
			must(err)
			know(merged)
			if rnd.IntN(2) == 0 {
				must(merged.Realise(e.ctx, cache.Access{}))
			}
		}
		switch rnd.IntN(12) {
		case 0:
			_, err := ref.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
			must(err)
		case 1:
			for _, r := range refs[:len(refs)/2] {
				must(r.Release(e.ctx))
			}
			refs = refs[len(refs)/2:]
			must(e.Prune(e.ctx, []cache.PruneOpt{{MaxUsedSpace: 100_000}}, func(cache.Usage) {}))
		case 2:
			for _, id := range e.Search("files", "all") {
				if m, err := e.GetMutable(e.ctx, id); err == nil {
					must(m.Release(e.ctx))
				}
			}
		}
	}
}

func TestKilledAtAnyTime(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		require.NoError(t, e.Close())
		for round := range 8 {
			kill(t, e, time.Duration(5+round*round*12)*time.Millisecond)
			start := time.Now()
			e.open()
			require.Less(t, time.Since(start), 2*time.Second, "opening after a crash")
			require.NoError(t, e.Check(e.ctx))
			for _, id := range e.Search("files", "all") {
				ref, err := e.Get(e.ctx, id)
				require.NoError(t, err)
				var want map[string]string
				require.NoError(t, json.Unmarshal(ref.Value("files"), &want))
				require.Equal(t, want, e.files(ref, cache.Access{}), "a record works or is not there")
				_, err = ref.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
				require.NoError(t, err)
				e.release(ref)
			}
			require.NoError(t, e.Check(e.ctx))
			require.NoError(t, e.Close())
		}
		e.open()
	})
}

// kill lets a victim work for a while.
func kill(t *testing.T, e *env, after time.Duration) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), victimRoot+"="+e.root, "CACHE_TEST_VICTIM_SNAPSHOTTER="+e.name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, "open", lines.Text())
	time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	for lines.Scan() {
		t.Error(lines.Text())
	}
	require.Error(t, cmd.Wait())
}

func TestAfterAPowerFailureOnlyWhatWasOnDiskIsBelieved(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		safe := e.step(nil, "a", "a")
		cached := e.newTree(nil, cache.NewOpt{Retain: true}, "c", "c")
		require.NoError(t, cached.Release(e.ctx))
		require.NoError(t, e.SyncFiles())
		unsafe := e.step(safe, "b", "b")
		above := e.step(unsafe)
		written := e.newTree(nil, cache.NewOpt{Retain: true}, "w", "w")
		require.NoError(t, e.Flush())

		// What a disk may hold after a power failure: the records, not all files.
		copied := filepath.Join(e.root, "copy")
		require.NoError(t, os.Mkdir(copied, 0o700))
		out, err := exec.Command("cp", "-a", filepath.Join(e.root, "cache"), copied).CombinedOutput()
		require.NoError(t, err, string(out))
		m, err := cache.OpenAt(e.ctx, cache.Config{Root: copied, Snapshotter: e.name}, "another boot")
		require.NoError(t, err)
		after := &env{Manager: m, t: t, ctx: e.ctx, root: copied, name: e.name}
		ref, err := after.Get(e.ctx, safe.ID())
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "a"}, after.files(ref, cache.Access{}))
		after.release(ref)
		for _, id := range []string{unsafe.ID(), above.ID()} {
			_, err = after.Get(e.ctx, id)
			require.ErrorIs(t, err, cache.ErrNotFound)
		}
		_, err = after.GetMutable(e.ctx, written.ID())
		require.ErrorIs(t, err, cache.ErrNotFound)
		mut, err := after.GetMutable(e.ctx, cached.ID())
		require.NoError(t, err)
		require.NoError(t, mut.Release(e.ctx))
		after.close()

		// A crash of the process alone loses nothing.
		require.NoError(t, os.RemoveAll(copied))
		require.NoError(t, written.Release(e.ctx))
		e.release(safe, unsafe, above)
		e.reopen()
		require.Len(t, e.usage(), 5)
	})
}

func TestValuesOfATreeThatWasBeingWrittenAreForgotten(t *testing.T) {
	e := newEnv(t, snapshot.Overlay)
	m := e.newTree(nil, cache.NewOpt{Retain: true}, "x", "1")
	id := m.ID()
	require.NoError(t, m.SetValue("digest of x", []byte("1"), ""))
	require.NoError(t, m.SetValue("name", []byte("n"), "n"))
	ref, err := m.Commit(e.ctx)
	require.NoError(t, err)
	e.release(ref)
	e.reopen()
	m, err = e.GetMutable(e.ctx, id)
	require.NoError(t, err)
	require.Equal(t, "1", string(m.Value("digest of x")))

	// The process ends without releasing it: the state is that of the disk at this moment.
	copied := filepath.Join(e.root, "copy")
	require.NoError(t, os.Mkdir(copied, 0o700))
	out, err := exec.Command("cp", "-a", filepath.Join(e.root, "cache"), copied).CombinedOutput()
	require.NoError(t, err, string(out))
	crashed, err := cache.Open(e.ctx, cache.Config{Root: copied, Snapshotter: e.name})
	require.NoError(t, err)
	_, err = crashed.Get(e.ctx, ref.ID())
	require.ErrorIs(t, err, cache.ErrNotFound, "dropped for good before anybody could write")
	again, err := crashed.GetMutable(e.ctx, id)
	require.NoError(t, err)
	require.Nil(t, again.Value("digest of x"))
	require.Equal(t, "n", string(again.Value("name")))
	require.NoError(t, again.Release(e.ctx))
	require.NoError(t, crashed.Check(e.ctx))
	require.NoError(t, crashed.Close())
	require.NoError(t, os.RemoveAll(copied))
	require.NoError(t, m.Release(e.ctx))
}

func TestADiskThatIsFull(t *testing.T) {
	e := &env{t: t, ctx: t.Context(), root: tmpfs(t, "24m"), name: snapshot.Overlay}
	e.open()
	var ref *cache.Ref
	var err error
	for i := 0; err == nil; i++ {
		var m *cache.MutableRef
		m, err = e.New(e.ctx, ref, cache.Access{}, cache.NewOpt{})
		if err != nil {
			break
		}
		dir, release := upper(t, m)
		// The last bytes go too.
		for size := 1 << 20; size > 0 && err == nil; size /= 2 {
			err = os.WriteFile(filepath.Join(dir, fmt.Sprint(size)), make([]byte, size), 0o644)
		}
		require.NoError(t, release())
		var next *cache.Ref
		next, commitErr := m.Commit(e.ctx)
		require.NoError(t, commitErr)
		if err == nil {
			_, err = next.Layers(e.ctx, blob.CompressionOpt{Type: blob.Uncompressed}, cache.Access{})
		}
		e.release(ref)
		ref = next
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	_, err = ref.Layers(e.ctx, blob.CompressionOpt{Type: blob.Uncompressed}, cache.Access{})
	require.ErrorIs(t, err, unix.ENOSPC)
	id := ref.ID()
	e.release(ref)
	require.NotEmpty(t, e.prune(cache.PruneOpt{Filters: []string{"id==" + id}}))
	ref = e.step(nil, "x", "x")
	e.release(ref)
	e.reopen()
	require.NotEmpty(t, e.usage())
	require.NotEmpty(t, e.prune(cache.PruneOpt{}))
	e.close()
}
