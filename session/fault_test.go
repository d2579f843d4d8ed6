package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	secretspb "github.com/openbuildkit/buildkit/api/session/secrets"
	"github.com/openbuildkit/buildkit/session"
)

func TestAnErrorOfAClientIsAFaultOfItsSession(t *testing.T) {
	m := session.NewManager()
	s := run(t, m, fail(errors.New("broken")))
	c, err := m.Get(t.Context(), s.ID())
	require.NoError(t, err)
	_, err = get(t.Context(), c)
	require.Equal(t, []string{s.ID()}, faulty(fmt.Errorf("wrapped: %w", err)))
	require.EqualError(t, err, "broken", "it is told as it is")

	t.Run("also in a stream", func(t *testing.T) {
		stream, err := c.Conn().NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, secretspb.Secrets_GetSecret_FullMethodName)
		require.NoError(t, err)
		require.NoError(t, stream.SendMsg(&secretspb.GetSecretRequest{}))
		require.NoError(t, stream.CloseSend())
		require.Equal(t, []string{s.ID()}, faulty(stream.RecvMsg(&secretspb.GetSecretResponse{})))
	})
	t.Run("but not if the caller has given it up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := get(ctx, c)
		require.Error(t, err)
		require.Empty(t, session.Faults(err))
	})
	t.Run("nor one of the daemon", func(t *testing.T) {
		full := errors.New("no space left on device")
		asked := 0
		err := m.Any(t.Context(), session.IDs{s.ID(), "other"}, func(context.Context, *session.Caller) error {
			asked++
			return full
		})
		require.Equal(t, full, err)
		require.Equal(t, 1, asked, "another client would not do better")
	})
}

func TestAnAnswerThatIsToBeShortIsNotTakenIfItIsLong(t *testing.T) {
	m := session.NewManager()
	s := run(t, m, answer(strings.Repeat("x", 2<<20)))
	c, err := m.Get(t.Context(), s.ID())
	require.NoError(t, err)
	_, err = get(t.Context(), c)
	require.NoError(t, err)
	_, err = secretspb.NewSecretsClient(c.Short()).GetSecret(t.Context(), &secretspb.GetSecretRequest{})
	require.ErrorContains(t, err, "the answer of the client to /moby.buildkit.secrets.v1.Secrets/GetSecret is none: grpc: received message larger than max")
	require.Equal(t, []string{s.ID()}, faulty(err))
}

func TestAllWhoWereAskedAreInTheError(t *testing.T) {
	m := session.NewManager()
	var ids session.IDs
	for _, err := range []error{errdefs.ErrNotFound.WithMessage("no such secret"), errors.New("broken"), errdefs.ErrNotFound.WithMessage("none here")} {
		s := run(t, m, fail(err))
		_, err := m.Get(t.Context(), s.ID())
		require.NoError(t, err)
		ids = append(ids, s.ID())
	}
	err := m.Any(t.Context(), ids, func(ctx context.Context, c *session.Caller) error {
		_, err := get(ctx, c)
		return err
	})
	require.EqualError(t, err, "no such secret")
	require.Equal(t, []string(ids), faulty(err))
	require.EqualError(t, session.Faults(err)[1], "broken")

	rest := session.Except(err, errdefs.IsNotFound)
	require.EqualError(t, rest, "broken", "who can do without it asks no more of the others")
	require.Equal(t, []string{ids[1]}, faulty(rest))
	require.NoError(t, session.Except(err, func(error) bool { return true }))
	plain := errors.New("plain")
	require.Equal(t, plain, session.Except(plain, func(error) bool { return true }))
}

func TestTheErrorOfAClientThatAnsweredIsTold(t *testing.T) {
	lost := &session.Fault{ID: "a", Err: &session.LostError{ID: "a", Cause: errors.New("reset")}}
	answered := &session.Fault{ID: "b", Err: errors.New("no")}
	err := session.Refuse(lost, answered)
	require.EqualError(t, err, "no")
	require.Equal(t, []string{"b", "a"}, faulty(errors.Join(err, &session.LostError{ID: "b"})))
	require.NotErrorIs(t, err, session.ErrLost)
	require.NoError(t, session.Refuse())
	require.Equal(t, []string{"c"}, faulty(fmt.Errorf("wait: %w", &session.NotActiveError{ID: "c", Err: errors.New("late")})))
	require.Equal(t, []string{"x", "y"}, faulty(session.BlameAll([]string{"x", "y"}, errors.New("denied"))))
}

// A client may ask its user, but not at the cost of others.
func TestAClientHasAllTheTimeThatNobodyElseWaits(t *testing.T) {
	for name, tc := range map[string]struct {
		others int
		took   time.Duration
	}{
		"alone":       {0, time.Hour},
		"with others": {1, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := session.NewManager()
				slow, err := session.New("")
				require.NoError(t, err)
				slow.Allow(secrets{get: func(ctx context.Context, _ string) ([]byte, error) {
					select {
					case <-time.After(time.Hour):
						return []byte("late"), nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}})
				good, err := session.New("")
				require.NoError(t, err)
				good.Allow(answer("good"))
				group := session.IDs{slow.ID()}
				var ends []func()
				for i, s := range []*session.Session{slow, good} {
					dial, handled := pipe(context.Background(), m, nil)
					ran := make(chan error, 1)
					go func() { ran <- s.Run(context.Background(), dial) }()
					_, err := m.Get(t.Context(), s.ID())
					require.NoError(t, err)
					if i > 0 && tc.others > 0 {
						group = append(group, s.ID())
					}
					ends = append(ends, func() { require.NoError(t, s.Close()); require.NoError(t, <-ran); require.NoError(t, <-handled) })
				}
				begun := time.Now()
				var got string
				require.NoError(t, m.Ask(t.Context(), group, func(ctx context.Context, c *session.Caller) (err error) {
					got, err = get(ctx, c)
					return err
				}))
				require.Equal(t, tc.took, time.Since(begun))
				require.Equal(t, []string{"late", "good"}[tc.others], got)
				for _, end := range ends {
					end()
				}
				time.Sleep(time.Minute) //nolint:forbidigo // let timers of the transport end inside the bubble
			})
		})
	}
}

func faulty(err error) (ids []string) {
	for _, f := range session.Faults(err) {
		ids = append(ids, f.ID)
	}
	return ids
}
