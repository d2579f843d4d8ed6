//go:build linux

package filesync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

const manyFiles = 20_000

func TestTwentyThousandFilesBothWays(t *testing.T) {
	src, dst, out := tmpfs(t), tmpfs(t), tmpfs(t)
	many(t, src, manyFiles)
	want := tree(t, src)
	_, c := sessiontest.Connect(t,
		filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, src)}),
		filesync.NewTarget(map[int]filesync.Output{0: {Dir: out}}))
	var state strings.Builder
	receive(t, c, filesync.ReceiveOpt{Dest: dst, NextState: &state})
	require.Equal(t, want, tree(t, dst))
	require.NoError(t, filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{}))
	require.Equal(t, want, tree(t, out))
	// Again, over what is there.
	receive(t, c, filesync.ReceiveOpt{Dest: dst, PrevState: strings.NewReader(state.String())})
	require.NoError(t, filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{}))
	require.Equal(t, want, tree(t, dst))
	require.Equal(t, want, tree(t, out))
}

func TestTwentyThousandFilesWithForeignEngines(t *testing.T) {
	src, dst, out := tmpfs(t), tmpfs(t), tmpfs(t)
	many(t, src, manyFiles)
	want := tree(t, src)
	c := oldTransport(t, session.NewManager(), foreign(src, out))
	receive(t, c, filesync.ReceiveOpt{Dest: dst})
	require.Equal(t, want, tree(t, dst))
	require.NoError(t, filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{}))
	require.Equal(t, withoutDirTimes(want), withoutDirTimes(tree(t, out)))
}

func TestOneLargeFileIsNotHeldInMemory(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	f, err := os.Create(filepath.Join(src, "large"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(256<<20))
	require.NoError(t, f.Close())
	c := offering(t, src)
	for range 2 { // pools keep what was there over one collection
		runtime.GC()
	}
	inUse := func() uint64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapInuse
	}
	before, most := inUse(), uint64(0)
	receive(t, c, filesync.ReceiveOpt{Dest: dst, Progress: func(int64, bool) { most = max(most, inUse()) }})
	info, err := os.Stat(filepath.Join(dst, "large"))
	require.NoError(t, err)
	require.EqualValues(t, 256<<20, info.Size())
	require.Less(t, most, before+100<<20)
}

// throttled is a connection that moves a limited number of bytes at a time.
type throttled struct {
	net.Conn
	chunk int
	pause time.Duration
}

func (s throttled) Read(p []byte) (int, error) {
	<-time.After(s.pause)
	return s.Conn.Read(p[:min(len(p), s.chunk)])
}

func (s throttled) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		<-time.After(s.pause)
		m, err := s.Conn.Write(p[:min(len(p), s.chunk)])
		n += m
		if err != nil {
			return n, err
		}
		p = p[m:]
	}
	return n, nil
}

func TestASlowConnectionIsNoHindrance(t *testing.T) {
	src, dst, out := tmpfs(t), tmpfs(t), tmpfs(t)
	many(t, src, 2000)
	c := sessiontest.Join(t, session.NewManager(),
		func(c net.Conn) net.Conn { return throttled{c, 64 << 10, time.Millisecond} },
		filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, src)}),
		filesync.NewTarget(map[int]filesync.Output{0: {Dir: out}}))
	receive(t, c, filesync.ReceiveOpt{Dest: dst})
	require.NoError(t, filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{}))
	require.Equal(t, tree(t, src), tree(t, dst))
	require.Equal(t, tree(t, src), tree(t, out))
}

// cut is a connection that ends, or stops to move, after some bytes.
type cut struct {
	net.Conn
	mu    sync.Mutex
	left  int
	stop  chan struct{} // nil: close instead
	close sync.Once
}

func (c *cut) count(n int) error {
	c.mu.Lock()
	c.left -= n
	over := c.left < 0
	c.mu.Unlock()
	if !over {
		return nil
	}
	if c.stop == nil {
		c.Conn.Close()
	} else {
		<-c.stop
	}
	return net.ErrClosed
}

func (c *cut) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if cerr := c.count(n); cerr != nil {
		return 0, cerr
	}
	return n, err
}

func (c *cut) Write(p []byte) (int, error) {
	if err := c.count(len(p)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *cut) Close() error {
	if c.stop != nil {
		c.close.Do(func() { close(c.stop) })
	}
	return c.Conn.Close()
}

func TestAPeerThatVanishesEndsTheTransferAtOnce(t *testing.T) {
	src := tmpfs(t)
	many(t, src, 5000)
	for _, bytes := range []int{20_000, 300_000, 2_000_000, 6_000_000} {
		for name, run := range map[string]func(*session.Caller) error{
			"sender": func(c *session.Caller) error {
				return filesync.Receive(t.Context(), c, filesync.ReceiveOpt{Name: "src", Dest: tmpfs(t)})
			},
			"receiver": func(c *session.Caller) error {
				return filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{})
			},
		} {
			t.Run(fmt.Sprintf("a %s after %d bytes", name, bytes), func(t *testing.T) {
				c := sessiontest.Join(t, session.NewManager(),
					func(c net.Conn) net.Conn { return &cut{Conn: c, left: bytes} },
					filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, src)}),
					filesync.NewTarget(map[int]filesync.Output{0: {Dir: tmpfs(t)}}))
				start := time.Now()
				err := run(c)
				require.ErrorIs(t, err, session.ErrLost)
				require.Less(t, time.Since(start), 10*time.Second)
			})
		}
	}
}

func TestAPeerThatStopsIsLeftWhenTheContextEnds(t *testing.T) {
	src := tmpfs(t)
	many(t, src, 5000)
	errStop := errors.New("enough")
	for name, run := range map[string]func(context.Context, *session.Caller) error{
		"a sender": func(ctx context.Context, c *session.Caller) error {
			return filesync.Receive(ctx, c, filesync.ReceiveOpt{Name: "src", Dest: tmpfs(t)})
		},
		"a receiver": func(ctx context.Context, c *session.Caller) error {
			return filesync.Send(ctx, c, localFS(t, src), filesync.SendOpt{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			stopped := &cut{left: 1_000_000, stop: make(chan struct{})}
			c := sessiontest.Join(t, session.NewManager(),
				func(c net.Conn) net.Conn { stopped.Conn = c; return stopped },
				filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, src)}),
				filesync.NewTarget(map[int]filesync.Output{0: {Dir: tmpfs(t)}}))
			t.Cleanup(func() { stopped.Close() })
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(200*time.Millisecond, func() { cancel(errStop) })
			start := time.Now()
			require.Error(t, run(ctx, c))
			require.Less(t, time.Since(start), 5*time.Second)
		})
	}
}

func TestAPeerThatReadsNothingDoesNotBlockTheReasonForAnEnd(t *testing.T) {
	// The client sends descriptions without end and reads no request.
	_, c := sessiontest.Connect(t, scripted{send: func(st grpc.BidiStreamingServer[types.Packet, types.Packet]) error {
		for i := 0; ; i++ {
			if err := st.Send(entry(fmt.Sprintf("f%08d", i), 0o644, "")); err != nil {
				return err
			}
			if i == 50_000 {
				if err := st.Send(entry("../out", 0o644, "")); err != nil {
					return err
				}
			}
		}
	}})
	err := filesync.Receive(t.Context(), c, filesync.ReceiveOpt{Name: "src", Dest: tmpfs(t)})
	require.ErrorContains(t, err, `path "../out" leaves the tree`)
}

func TestAFullDiskIsAnError(t *testing.T) {
	src := tmpfs(t)
	many(t, src, 100)
	dst := smallTmpfs(t, "64k")
	err := filesync.Receive(t.Context(), offering(t, src), filesync.ReceiveOpt{Name: "src", Dest: dst})
	require.ErrorContains(t, err, "no space left on device")
}

func benchmarkReceive(b *testing.B, fill func(dir string), opt func() filesync.ReceiveOpt) {
	src := tmpfs(b)
	fill(src)
	c := offering(b, src)
	for b.Loop() {
		b.StopTimer()
		dst, err := os.MkdirTemp(benchDir(b), "dst") //nolint:usetesting // on the tmpfs
		require.NoError(b, err)
		b.StartTimer()
		o := opt()
		o.Dest = dst
		receive(b, c, o)
		b.StopTimer()
		require.NoError(b, os.RemoveAll(dst))
		b.StartTimer()
	}
}

var benchDirs sync.Map

// benchDir returns one tmpfs per benchmark.
func benchDir(b *testing.B) string {
	if d, ok := benchDirs.Load(b); ok {
		return d.(string)
	}
	d := tmpfs(b)
	benchDirs.Store(b, d)
	return d
}

func BenchmarkReceive20kFiles(b *testing.B) {
	benchmarkReceive(b, func(dir string) { many(b, dir, manyFiles) }, func() filesync.ReceiveOpt { return filesync.ReceiveOpt{} })
}

func BenchmarkReceiveLargeFile(b *testing.B) {
	b.SetBytes(512 << 20)
	benchmarkReceive(b, func(dir string) {
		f, err := os.Create(filepath.Join(dir, "large"))
		require.NoError(b, err)
		_, err = io.CopyN(f, zeros{}, 512<<20)
		require.NoError(b, err)
		require.NoError(b, f.Close())
	}, func() filesync.ReceiveOpt { return filesync.ReceiveOpt{} })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func BenchmarkReceive20kUnchanged(b *testing.B) {
	src, dst := tmpfs(b), tmpfs(b)
	many(b, src, manyFiles)
	time.Sleep(100 * time.Millisecond) //nolint:forbidigo // change times cannot be set, and have to be old
	c := offering(b, src)
	var state strings.Builder
	receive(b, c, filesync.ReceiveOpt{Dest: dst, NextState: &state})
	for b.Loop() {
		var next strings.Builder
		receive(b, c, filesync.ReceiveOpt{Dest: dst, PrevState: strings.NewReader(state.String()), NextState: &next})
	}
}

func BenchmarkSend20kFiles(b *testing.B) {
	src := tmpfs(b)
	many(b, src, manyFiles)
	fs := localFS(b, src)
	for b.Loop() {
		b.StopTimer()
		dst, err := os.MkdirTemp(benchDir(b), "dst") //nolint:usetesting // on the tmpfs
		require.NoError(b, err)
		_, c := sessiontest.Connect(b, filesync.NewTarget(map[int]filesync.Output{0: {Dir: dst}}))
		b.StartTimer()
		require.NoError(b, filesync.Send(context.Background(), c, fs, filesync.SendOpt{}))
		b.StopTimer()
		require.NoError(b, os.RemoveAll(dst))
		b.StartTimer()
	}
}
