//go:build linux

package git

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

// Credentials that do not do are the fault of those who have given them; others are asked the next
// time.
func TestADenialOfARemoteIsOfThoseWhoseCredentialsItSaw(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	newRepo(t, root, "r")
	s := serve(t, root)
	s.mu.Lock()
	s.auth = "right"
	s.mu.Unlock()
	b := newBench(t, secrets.NewProvider(memory{"GIT_AUTH_HEADER": "right"}))
	right := b.session
	join := func(header memory) string {
		return sessiontest.Join(t, b.src.cfg.Sessions, nil, secrets.NewProvider(header)).ID()
	}
	nobody, liar, careless := join(memory{}), join(memory{"GIT_AUTH_HEADER": "wrong"}), join(memory{"GIT_AUTH_HEADER": "a\nb"})
	for id, want := range map[string]string{nobody: "could not read Username", liar: "could not read Username", careless: "more than one line"} {
		i := b.instance(s.url("r"), "main", nil, nil)
		i.env.Sessions = session.IDs{id}
		_, _, err := i.Key(t.Context(), 0)
		require.ErrorContains(t, err, want)
		faults := session.Faults(err)
		require.Len(t, faults, 1)
		require.Equal(t, id, faults[0].ID)

		i.env.Sessions = session.IDs{right}
		_, _, err = i.Key(t.Context(), 0)
		require.NoError(t, err)
	}

	// Who had it resolved may lose the right to fetch it before it is.
	i := b.instance(s.url("r"), "main", nil, nil)
	_, _, err := i.Key(t.Context(), 0)
	require.NoError(t, err)
	s.mu.Lock()
	s.auth = "wrong"
	s.mu.Unlock()
	_, err = i.Fetch(t.Context())
	require.Equal(t, right, session.Faults(err)[0].ID)
	i.env.Sessions = session.IDs{liar}
	ref, err := i.Fetch(t.Context())
	require.NoError(t, err)
	require.NoError(t, ref.Release(t.Context()))
}
