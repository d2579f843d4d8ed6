package session_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	secretspb "github.com/openbuildkit/buildkit/api/session/secrets"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secrets is a service of which tests make what they need.
type secrets struct {
	secretspb.UnimplementedSecretsServer
	get func(context.Context, string) ([]byte, error)
}

func (s secrets) Register(srv *grpc.Server) { secretspb.RegisterSecretsServer(srv, s) }

func (s secrets) GetSecret(ctx context.Context, req *secretspb.GetSecretRequest) (*secretspb.GetSecretResponse, error) {
	data, err := s.get(ctx, req.ID)
	return &secretspb.GetSecretResponse{Data: data}, err
}

func answer(text string) secrets {
	return secrets{get: func(context.Context, string) ([]byte, error) { return []byte(text), nil }}
}

func fail(err error) secrets {
	return secrets{get: func(context.Context, string) ([]byte, error) { return nil, err }}
}

func get(ctx context.Context, c *session.Caller) (string, error) {
	resp, err := secretspb.NewSecretsClient(c.Conn()).GetSecret(ctx, &secretspb.GetSecretRequest{ID: "x"})
	return string(resp.GetData()), err
}

// pipe returns a dialer whose other end is handled by m, and the result of handling.
func pipe(ctx context.Context, m *session.Manager, extra map[string][]string) (session.Dialer, <-chan error) {
	done := make(chan error, 1)
	return func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		for k, v := range extra {
			meta[k] = v
		}
		client, daemon := net.Pipe()
		go func() { done <- m.HandleConn(ctx, daemon, meta) }()
		return client, nil
	}, done
}

// run runs a session against m until the test ends.
func run(t *testing.T, m *session.Manager, services ...session.Attachable) *session.Session {
	t.Helper()
	s, err := session.New("key")
	require.NoError(t, err)
	for _, svc := range services {
		s.Allow(svc)
	}
	dial, handled := pipe(context.Background(), m, nil)
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.Background(), dial) }()
	t.Cleanup(func() {
		s.Close()
		require.NoError(t, <-ran)
		require.NoError(t, <-handled)
	})
	return s
}

type control struct {
	controlpb.UnimplementedControlServer
	m *session.Manager
}

func (c control) Session(stream controlpb.Control_SessionServer) error {
	return c.m.HandleStream(stream)
}

// serveControl returns a client of a control API whose sessions m holds.
func serveControl(t *testing.T, m *session.Manager) controlpb.ControlClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(grpc.StreamInterceptor(status.StreamServer))
	controlpb.RegisterControlServer(srv, control{m: m})
	go func() { _ = srv.Serve(lis) }()
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { cc.Close(); srv.Stop() })
	return controlpb.NewControlClient(cc)
}

func TestSessionThroughTheControlAPI(t *testing.T) {
	m := session.NewManager()
	client := serveControl(t, m)
	s, err := session.New("shared")
	require.NoError(t, err)
	require.Len(t, s.ID(), 25)
	big := strings.Repeat("x", 5<<20)
	s.Allow(answer(big))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context(), session.GRPCDialer(client)) }()

	c, err := m.Get(t.Context(), "prefix:"+s.ID())
	require.NoError(t, err)
	require.Equal(t, s.ID(), c.ID())
	require.Equal(t, "shared", c.SharedKey())
	require.True(t, c.Supports("/MOBY.buildkit.secrets.v1.Secrets/GetSecret"))
	require.True(t, c.Supports("/grpc.health.v1.Health/Check"))
	require.False(t, c.Supports("/moby.filesync.v1.FileSync/DiffCopy"))
	text, err := get(t.Context(), c)
	require.NoError(t, err)
	require.Len(t, text, len(big))
	require.NoError(t, c.Err())

	require.NoError(t, s.Close())
	require.NoError(t, <-ran)
	<-c.Done()
	require.ErrorIs(t, c.Err(), session.ErrLost)
	require.EqualError(t, c.Err(), "session "+s.ID()+" lost: connection closed")
	_, err = get(t.Context(), c)
	require.ErrorIs(t, err, session.ErrLost)
}

func TestErrorsOfTheClientKeepKindAndText(t *testing.T) {
	m := session.NewManager()
	s := run(t, m, fail(fmt.Errorf("look: %w", &status.ExitError{Code: 3, Err: errdefs.ErrNotFound.WithMessage("gone")})))
	c, err := m.Get(t.Context(), s.ID())
	require.NoError(t, err)
	_, err = get(t.Context(), c)
	var exit *status.ExitError
	require.ErrorAs(t, err, &exit)
	require.EqualError(t, err, "look: gone")
	require.True(t, errdefs.IsNotFound(err))
}

func TestADuplicateIDIsRefused(t *testing.T) {
	m := session.NewManager()
	s := run(t, m)
	_, err := m.Get(t.Context(), s.ID())
	require.NoError(t, err)
	a, b := net.Pipe()
	defer a.Close()
	err = m.HandleConn(t.Context(), b, map[string][]string{"x-docker-expose-session-uuid": {s.ID()}})
	require.ErrorContains(t, err, "already exists")
}

func TestBadHeadersAreRefused(t *testing.T) {
	for name, h := range map[string]map[string][]string{
		"no id":                      nil,
		"an empty id":                {"X-Docker-Expose-Session-Uuid": {""}},
		"a timeout that's no number": {"X-Docker-Expose-Session-Uuid": {"a"}, "x-buildkit-session-health-custom-timeout": {"soon"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			defer a.Close()
			err := session.NewManager().HandleConn(t.Context(), b, h)
			require.Equal(t, codes.InvalidArgument, status.Code(err))
		})
	}
	_, err := session.New("schlüssel")
	require.ErrorContains(t, err, "invalid shared key")
}

func TestLookup(t *testing.T) {
	t.Run("a session that never appears ends the wait after 5 s", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := session.NewManager().Get(t.Context(), "nobody")
			require.EqualError(t, err, "no active session for nobody: context deadline exceeded")
			require.ErrorIs(t, err, session.ErrNoSession)
			require.Equal(t, 5*time.Second, time.Since(start))
		})
	})
	t.Run("a session that appears later is found", func(t *testing.T) {
		m := session.NewManager()
		s, err := session.New("")
		require.NoError(t, err)
		got := make(chan error, 1)
		go func() { _, err := m.Get(context.Background(), s.ID()); got <- err }()
		dial, handled := pipe(context.Background(), m, nil)
		ran := make(chan error, 1)
		go func() { ran <- s.Run(context.Background(), dial) }()
		require.NoError(t, <-got)
		s.Close()
		require.NoError(t, <-ran)
		require.NoError(t, <-handled)
	})
}

func TestAny(t *testing.T) {
	m := session.NewManager()
	lacking := run(t, m)
	without := run(t, m, fail(errdefs.ErrNotFound.WithMessage("no such secret")))
	broken := run(t, m, fail(errors.New("broken")))
	good := run(t, m, answer("good"))
	for _, s := range []*session.Session{lacking, without, broken, good} {
		_, err := m.Get(t.Context(), s.ID())
		require.NoError(t, err)
	}
	for name, tc := range map[string]struct {
		group session.IDs
		want  string
		err   string
	}{
		"no group at all":                        {nil, "", "no active sessions"},
		"a group with nothing but empty ids":     {session.IDs{"", ""}, "", "no active sessions"},
		"the first that has it is asked":         {session.IDs{good.ID(), broken.ID()}, "good", ""},
		"without the service it is passed":       {session.IDs{lacking.ID(), good.ID()}, "good", ""},
		"NotFound is passed":                     {session.IDs{without.ID(), good.ID()}, "good", ""},
		"one that is gone is tried last":         {session.IDs{"gone", good.ID()}, "good", ""},
		"other errors are passed, too":           {session.IDs{broken.ID(), good.ID()}, "good", ""},
		"and told if nobody has it":              {session.IDs{broken.ID(), without.ID()}, "", "broken"},
		"the answer of a client is what is told": {session.IDs{without.ID(), without.ID()}, "", "no such secret"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			err := m.Any(t.Context(), tc.group, func(ctx context.Context, c *session.Caller) (err error) {
				got, err = get(ctx, c)
				return err
			})
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

// growing is a group that a second session joins when the first was read.
type growing struct{ ids [][]string }

func (g *growing) SessionIDs() []string {
	ids := g.ids[0]
	if len(g.ids) > 1 {
		g.ids = g.ids[1:]
	}
	return ids
}

func TestAnyFollowsALiveGroupPastALostSession(t *testing.T) {
	m := session.NewManager()
	asked := make(chan struct{})
	stuck := run(t, m, secrets{get: func(ctx context.Context, _ string) ([]byte, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	good := run(t, m, answer("good"))
	_, err := m.Get(t.Context(), good.ID())
	require.NoError(t, err)
	go func() { <-asked; stuck.Close() }()
	var got string
	err = m.Any(t.Context(), &growing{[][]string{{stuck.ID()}, {stuck.ID(), good.ID()}}}, func(ctx context.Context, c *session.Caller) (err error) {
		got, err = get(ctx, c)
		return err
	})
	require.NoError(t, err)
	require.Equal(t, "good", got)
}

func TestAClosedConnectionFailsCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := session.NewManager()
		asked := make(chan struct{})
		s, err := session.New("")
		require.NoError(t, err)
		s.Allow(secrets{get: func(ctx context.Context, _ string) ([]byte, error) {
			close(asked)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		dial, handled := pipe(context.Background(), m, nil)
		var conn net.Conn
		ran := make(chan error, 1)
		go func() {
			ran <- s.Run(context.Background(), func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
				c, err := dial(ctx, proto, meta)
				conn = c
				return c, err
			})
		}()
		c, err := m.Get(t.Context(), s.ID())
		require.NoError(t, err)
		start := time.Now()
		go func() { <-asked; conn.Close() }()
		_, err = get(t.Context(), c)
		require.ErrorIs(t, err, session.ErrLost)
		require.EqualError(t, err, "session "+s.ID()+" lost: connection closed")
		require.Less(t, time.Since(start), time.Second)
		require.ErrorIs(t, <-ran, session.ErrLost)
		require.NoError(t, <-handled)
		time.Sleep(time.Minute) //nolint:forbidigo // let timers of the transport end inside the bubble
	})
}

// stallable is a connection that can stop to move bytes without closing.
type stallable struct {
	net.Conn
	stalled chan struct{}
	closed  chan struct{}
}

func (s *stallable) wait() error {
	select {
	case <-s.stalled:
		<-s.closed
		return net.ErrClosed
	default:
		return nil
	}
}

func (s *stallable) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if werr := s.wait(); werr != nil {
		return 0, werr
	}
	return n, err
}

func (s *stallable) Write(p []byte) (int, error) {
	if err := s.wait(); err != nil {
		return 0, err
	}
	return s.Conn.Write(p)
}

func TestAStalledConnectionIsGivenUp(t *testing.T) {
	for name, tc := range map[string]struct {
		header map[string][]string
		least  time.Duration
		most   time.Duration
	}{
		"within 45 s as a rule":            {nil, 20 * time.Second, 45 * time.Second},
		"sooner if the client asks for it": {map[string][]string{"x-buildkit-session-health-custom-timeout": {"1"}}, time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := session.NewManager()
				s, err := session.New("")
				require.NoError(t, err)
				conn := &stallable{stalled: make(chan struct{}), closed: make(chan struct{})}
				s.Allow(secrets{get: func(ctx context.Context, _ string) ([]byte, error) {
					close(conn.stalled)
					<-ctx.Done()
					return nil, ctx.Err()
				}})
				dial, handled := pipe(context.Background(), m, tc.header)
				ran := make(chan error, 1)
				go func() {
					ran <- s.Run(context.Background(), func(ctx context.Context, proto string, meta map[string][]string) (c net.Conn, err error) {
						conn.Conn, err = dial(ctx, proto, meta)
						return conn, err
					})
				}()
				c, err := m.Get(t.Context(), s.ID())
				require.NoError(t, err)
				start := time.Now()
				_, err = get(t.Context(), c)
				require.ErrorIs(t, err, session.ErrLost)
				require.ErrorContains(t, err, "session "+s.ID()+" lost: no answer to health checks")
				require.GreaterOrEqual(t, time.Since(start), tc.least)
				require.LessOrEqual(t, time.Since(start), tc.most)
				require.ErrorIs(t, <-handled, session.ErrLost)
				close(conn.closed)
				s.Close()
				<-ran
				time.Sleep(time.Minute) //nolint:forbidigo // as above
			})
		})
	}
}

func TestASlowButLivingClientIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := session.NewManager()
		s, err := session.New("")
		require.NoError(t, err)
		s.Allow(secrets{get: func(context.Context, string) ([]byte, error) {
			time.Sleep(10 * time.Minute) //nolint:forbidigo // on the clock of the bubble
			return []byte("late"), nil
		}})
		dial, handled := pipe(context.Background(), m, nil)
		ran := make(chan error, 1)
		go func() { ran <- s.Run(context.Background(), dial) }()
		c, err := m.Get(t.Context(), s.ID())
		require.NoError(t, err)
		text, err := get(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, "late", text)
		s.Close()
		require.NoError(t, <-ran)
		require.NoError(t, <-handled)
		time.Sleep(time.Minute) //nolint:forbidigo // let timers of the transport end inside the bubble
	})
}

func TestIDsAreUniqueAndWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		s, err := session.New("")
		require.NoError(t, err)
		require.Regexp(t, "^[0-9a-z]{25}$", s.ID())
		require.False(t, seen[s.ID()])
		seen[s.ID()] = true
	}
	require.True(t, slices.Equal(session.IDs{"a"}.SessionIDs(), []string{"a"}))
}
