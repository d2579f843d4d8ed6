//go:build linux

package filesync_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	filesyncpb "github.com/openbuildkit/buildkit/api/session/filesync"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

// scripted is a client that does what a test says.
type scripted struct {
	filesyncpb.UnimplementedFileSyncServer
	filesyncpb.UnimplementedFileSendServer
	send func(grpc.BidiStreamingServer[types.Packet, types.Packet]) error
	take func(grpc.ServerStream) error
}

type scriptedSync struct {
	filesyncpb.UnimplementedFileSyncServer
	s scripted
}

func (s scriptedSync) DiffCopy(st grpc.BidiStreamingServer[types.Packet, types.Packet]) error {
	return s.s.send(st)
}

type scriptedSend struct {
	filesyncpb.UnimplementedFileSendServer
	s scripted
}

func (s scriptedSend) DiffCopy(st grpc.BidiStreamingServer[filesyncpb.BytesMessage, filesyncpb.BytesMessage]) error {
	return s.s.take(st)
}

func (s scripted) Register(srv *grpc.Server) {
	filesyncpb.RegisterFileSyncServer(srv, scriptedSync{s: s})
	filesyncpb.RegisterFileSendServer(srv, scriptedSend{s: s})
}

// foreign is a client with the engines of the fsutil library.
func foreign(src, dst string) scripted {
	return scripted{
		send: func(st grpc.BidiStreamingServer[types.Packet, types.Packet]) error {
			f, err := fsutil.NewFS(src)
			if err != nil {
				return err
			}
			return fsutil.Send(st.Context(), st, f, nil)
		},
		take: func(st grpc.ServerStream) error {
			return fsutil.Receive(st.Context(), st, dst, fsutil.ReceiveOpt{Merge: true})
		},
	}
}

// oldTransport connects a client that serves its session with the HTTP/2 server of
// golang.org/x/net, whose windows are small and which sends window updates of a stream behind
// that stream's data.
func oldTransport(t testing.TB, m *session.Manager, svc session.Attachable) *session.Caller {
	t.Helper()
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	svc.Register(srv)
	headers := map[string][]string{"X-Docker-Expose-Session-Uuid": {"old"}}
	for name, info := range srv.GetServiceInfo() {
		for _, method := range info.Methods {
			headers["X-Docker-Expose-Session-Grpc-Method"] = append(headers["X-Docker-Expose-Session-Grpc-Method"], "/"+name+"/"+method.Name)
		}
	}
	client, daemon := net.Pipe()
	handled := make(chan error, 1)
	go func() { handled <- m.HandleConn(context.Background(), daemon, headers) }()
	served := make(chan struct{})
	go func() {
		defer close(served)
		(&http2.Server{}).ServeConn(client, &http2.ServeConnOpts{Handler: srv}) //nolint:staticcheck // what it is to be replaced by takes listeners only
	}()
	t.Cleanup(func() {
		client.Close()
		<-handled
		<-served
	})
	c, err := m.Get(t.Context(), "old")
	require.NoError(t, err)
	return c
}

func TestForeignEnginesAndTransports(t *testing.T) {
	for name, connect := range map[string]func(*testing.T, session.Attachable) *session.Caller{
		"on our transport": func(t *testing.T, svc session.Attachable) *session.Caller {
			_, c := sessiontest.Connect(t, svc)
			return c
		},
		"on the transport of x/net": func(t *testing.T, svc session.Attachable) *session.Caller {
			return oldTransport(t, session.NewManager(), svc)
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := tmpfs(t), tmpfs(t)
			plant(t, src)
			many(t, src, 5000)
			c := connect(t, foreign(src, dst))

			here := tmpfs(t)
			receive(t, c, filesync.ReceiveOpt{Dest: here})
			require.Equal(t, tree(t, src), tree(t, here))

			require.NoError(t, filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{}))
			require.Equal(t, withoutDirTimes(tree(t, src)), withoutDirTimes(tree(t, dst)))
		})
	}
}

// withoutDirTimes drops what the library does not keep.
func withoutDirTimes(tree string) string {
	var b strings.Builder
	for line := range strings.Lines(tree) {
		f := strings.SplitN(line, " ", 5)
		if strings.HasPrefix(f[1], "d") || strings.HasPrefix(f[1], "L") {
			f[3] = "-"
		}
		b.WriteString(strings.Join(f, " "))
	}
	return b.String()
}

func TestRacyFilesOfForeignClientsAreAskedForAgain(t *testing.T) {
	src, dst := tmpfs(t), tmpfs(t)
	require.NoError(t, os.WriteFile(filepath.Join(src, "new"), []byte("1"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(src, "old"), []byte("1"), 0o644))
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(src, "old"), past, past))
	info, err := os.Stat(filepath.Join(src, "new"))
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, foreign(src, ""))
	var state, next strings.Builder
	receive(t, c, filesync.ReceiveOpt{Dest: dst, NextState: &state})
	for _, name := range []string{"new", "old"} {
		p := filepath.Join(src, name)
		was, err := os.Stat(p)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(p, []byte("2"), 0o644))
		require.NoError(t, os.Chtimes(p, was.ModTime(), was.ModTime()))
	}
	require.NotNil(t, info)
	receive(t, c, filesync.ReceiveOpt{Dest: dst, PrevState: strings.NewReader(state.String()), NextState: &next})
	data, err := os.ReadFile(filepath.Join(dst, "new"))
	require.NoError(t, err)
	require.Equal(t, "2", string(data))
}

func TestFilesOfStrangersAreTakenForEqualByTimesThatNobodySets(t *testing.T) {
	one, two, dst := tmpfs(t), tmpfs(t), tmpfs(t)
	set := time.Unix(1700000000, 123_000_000)
	grown := time.Unix(1700000000, 123_456_789)
	for name, modified := range map[string]time.Time{"set": set, "grown": grown} {
		for text, dir := range map[string]string{"1": one, "2": two} {
			p := filepath.Join(dir, name)
			require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
			require.NoError(t, os.Chtimes(p, modified, modified))
		}
	}
	var state strings.Builder
	_, c := sessiontest.Connect(t, foreign(one, ""))
	receive(t, c, filesync.ReceiveOpt{Dest: dst, NextState: &state})
	_, c = sessiontest.Connect(t, foreign(two, ""))
	receive(t, c, filesync.ReceiveOpt{Dest: dst, PrevState: strings.NewReader(state.String()), Strangers: true})
	for name, want := range map[string]string{"set": "2", "grown": "1"} {
		data, err := os.ReadFile(filepath.Join(dst, name))
		require.NoError(t, err)
		require.Equal(t, want, string(data), name)
	}
}

func entry(p string, mode os.FileMode, link string) *types.Packet {
	return &types.Packet{Type: types.PACKET_STAT, Stat: &types.Stat{Path: p, Mode: uint32(mode), Linkname: link, ModTime: 1}}
}

func TestSendersThatBreakTheRules(t *testing.T) {
	const dir = os.ModeDir | 0o755
	end := &types.Packet{Type: types.PACKET_STAT}
	data := func(id uint32, text string) *types.Packet {
		return &types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte(text)}
	}
	for name, tc := range map[string]struct {
		packets []*types.Packet
		want    string
	}{
		"an absolute path":                {[]*types.Packet{entry("/etc/x", 0o644, "")}, `absolute path "/etc/x"`},
		"a path that leaves the tree":     {[]*types.Packet{entry("../x", 0o644, "")}, `path "../x" leaves the tree`},
		"dots in the middle":              {[]*types.Packet{entry("a", dir, ""), entry("a/../../x", 0o644, "")}, `unclean path`},
		"dots at the end":                 {[]*types.Packet{entry("a", dir, ""), entry("a/..", 0o644, "")}, `unclean path`},
		"an empty path":                   {[]*types.Packet{entry("", dir, "")}, `empty path`},
		"the root":                        {[]*types.Packet{entry(".", dir, "")}, `empty path`},
		"a zero byte":                     {[]*types.Packet{entry("a\x00b", dir, "")}, `zero byte`},
		"a path twice":                    {[]*types.Packet{entry("a", 0o644, ""), entry("a", 0o644, "")}, `out of order`},
		"a path too early":                {[]*types.Packet{entry("b", 0o644, ""), entry("a", 0o644, "")}, `out of order`},
		"a child too late":                {[]*types.Packet{entry("a", dir, ""), entry("a-b", 0o644, ""), entry("a/b", 0o644, "")}, `out of order`},
		"a child of nothing":              {[]*types.Packet{entry("a/b", 0o644, "")}, `not below a directory`},
		"a child of a symbolic link":      {[]*types.Packet{entry("a", os.ModeSymlink|0o777, "/etc"), entry("a/b", 0o644, "")}, `not below a directory`},
		"a child of a file":               {[]*types.Packet{entry("a", 0o644, ""), entry("a/b", 0o644, "")}, `not below a directory`},
		"a hard link to outside":          {[]*types.Packet{entry("b", 0o644, "../../etc/passwd"), end}, `leaves the tree`},
		"a hard link to what comes later": {[]*types.Packet{entry("b", 0o644, "c"), end}, `not described before`},
		"a hard link to nothing":          {[]*types.Packet{entry("b", 0o644, "a"), end}, `which is not there`},
		"a hard link to a directory":      {[]*types.Packet{entry("a", dir, ""), entry("b", 0o644, "a"), end}, `which is no file`},
		"a hard link through a link":      {[]*types.Packet{entry("a", os.ModeSymlink, "/etc"), entry("b", 0o644, "a/passwd"), end}, `which is not there`},
		"data that nobody asked for":      {[]*types.Packet{data(7, "x")}, `data of file 7, which was not asked for`},
		"data of a directory":             {[]*types.Packet{entry("a", dir, ""), data(0, "x")}, `data of file 0, which was not asked for`},
		"an entry after the last":         {[]*types.Packet{end, entry("a", dir, "")}, `an entry after the last`},
		"an end before the end":           {[]*types.Packet{entry("a", 0o644, ""), {Type: types.PACKET_FIN}}, `the sender was done before the receiver`},
		"a request":                       {[]*types.Packet{{Type: types.PACKET_REQ}}, `unexpected packet of type 1`},
		"an unknown packet":               {[]*types.Packet{{Type: 9}}, `unexpected packet of type 9`},
		"a sender that leaves":            {[]*types.Packet{entry("a", 0o644, "")}, `the sender left before the transfer was done`},
		"an error":                        {[]*types.Packet{{Type: types.PACKET_ERR, Data: []byte("boom")}}, `error from sender: boom`},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dst := filepath.Join(parent, "dst")
			require.NoError(t, os.Mkdir(dst, 0o755))
			_, c := sessiontest.Connect(t, scripted{send: func(st grpc.BidiStreamingServer[types.Packet, types.Packet]) error {
				for _, p := range tc.packets {
					if err := st.Send(p); err != nil {
						return err
					}
				}
				if strings.HasPrefix(name, "a sender that leaves") {
					return nil
				}
				for {
					if _, err := st.Recv(); err != nil {
						return err
					}
				}
			}})
			err := filesync.Receive(t.Context(), c, filesync.ReceiveOpt{Name: "x", Dest: dst})
			require.ErrorContains(t, err, tc.want)
			if !strings.HasPrefix(tc.want, "error from") {
				var perr *filesync.ProtocolError
				require.ErrorAs(t, err, &perr)
			}
			require.Len(t, names(tree(t, parent)), 1+len(names(tree(t, dst))), "something was written outside of the destination")
			for _, n := range names(tree(t, dst)) {
				require.False(t, strings.HasPrefix(n, ".tmp"), n)
			}
		})
	}
}

func TestReceiversThatBreakTheRules(t *testing.T) {
	req := func(id uint32) *types.Packet { return &types.Packet{Type: types.PACKET_REQ, ID: id} }
	for name, tc := range map[string]struct {
		packets []*types.Packet
		want    string
	}{
		"a request for nothing":     {[]*types.Packet{req(99)}, "request for file 99"},
		"a request for a directory": {[]*types.Packet{req(0)}, "request for file 0"},
		"a request made twice":      {[]*types.Packet{req(2), req(2)}, "request for file 2"},
		"data":                      {[]*types.Packet{{Type: types.PACKET_DATA}}, "unexpected packet of type 2"},
		"an error":                  {[]*types.Packet{{Type: types.PACKET_ERR, Data: []byte("boom")}}, "error from receiver: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			src := tmpfs(t)
			many(t, src, 3)
			_, c := sessiontest.Connect(t, scripted{take: func(st grpc.ServerStream) error {
				for range 6 { // two directories, three files, the end
					if err := st.RecvMsg(&types.Packet{}); err != nil {
						return err
					}
				}
				for _, p := range tc.packets {
					if err := st.SendMsg(p); err != nil {
						return err
					}
				}
				for {
					if err := st.RecvMsg(&types.Packet{}); err != nil {
						return err
					}
				}
			}})
			err := filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{})
			require.ErrorContains(t, err, tc.want)
		})
	}
	t.Run("one that leaves", func(t *testing.T) {
		src := tmpfs(t)
		many(t, src, 3)
		_, c := sessiontest.Connect(t, scripted{take: func(grpc.ServerStream) error { return nil }})
		err := filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{})
		require.ErrorContains(t, err, "the receiver left before it was done")
	})
	t.Run("one that says why it leaves", func(t *testing.T) {
		src := tmpfs(t)
		many(t, src, 3)
		_, c := sessiontest.Connect(t, scripted{take: func(grpc.ServerStream) error { return fmt.Errorf("no space") }})
		err := filesync.Send(t.Context(), c, localFS(t, src), filesync.SendOpt{})
		require.EqualError(t, err, "no space")
	})
}
