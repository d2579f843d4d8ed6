package secrets_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSecretsOfFilesAndEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	require.NoError(t, os.WriteFile("file", []byte("from file"), 0o600))
	require.NoError(t, os.WriteFile("bare", []byte("from bare file"), 0o600))
	t.Setenv("VAR", "from env")
	t.Setenv("bare-env", "from bare env")
	store, err := secrets.NewStore([]secrets.Source{
		{ID: "a", FilePath: filepath.Join(dir, "file")}, {ID: "b", Env: "VAR"}, {ID: "bare"}, {ID: "bare-env"}, {ID: "empty", Env: "UNSET"},
	})
	require.NoError(t, err)
	m, c := sessiontest.Connect(t, secrets.NewProvider(store))
	g := session.IDs{c.ID()}
	for id, want := range map[string]string{"a": "from file", "b": "from env", "bare": "from bare file", "bare-env": "from bare env", "empty": ""} {
		got, err := secrets.Get(t.Context(), m, g, id)
		require.NoError(t, err)
		require.Equal(t, want, string(got.Data), id)
		require.Equal(t, c.ID(), got.Session)
	}
	require.NoError(t, os.WriteFile("file", make([]byte, 512001), 0o600))
	_, err = secrets.Get(t.Context(), m, g, "a")
	require.EqualError(t, err, "secret a too big. max size 500KiB")
	require.NoError(t, os.Remove("file"))
	_, err = secrets.Get(t.Context(), m, g, "a")
	require.EqualError(t, err, "secret a: not found")
}

func TestBadSources(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big")
	require.NoError(t, os.WriteFile(big, make([]byte, 600_000), 0o600))
	for name, tc := range map[string]struct {
		src  secrets.Source
		want string
	}{
		"no id":          {secrets.Source{FilePath: big}, "secret missing ID"},
		"a big file":     {secrets.Source{ID: "x", FilePath: big}, "secret x too big. max size 500KiB"},
		"a missing file": {secrets.Source{ID: "x", FilePath: big + "ger"}, "secret x: stat"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := secrets.NewStore([]secrets.Source{tc.src})
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestASecretNobodyHas(t *testing.T) {
	m, with := sessiontest.Connect(t, secrets.NewProvider(secrets.Values{"a": []byte("1")}))
	without := sessiontest.Join(t, m, nil)
	got, err := secrets.Get(t.Context(), m, session.IDs{without.ID(), with.ID()}, "a")
	require.NoError(t, err)
	require.Equal(t, secrets.Secret{Data: []byte("1"), Session: with.ID()}, got)
	for _, g := range []session.IDs{{with.ID()}, {without.ID()}, {with.ID(), without.ID()}} {
		_, err = secrets.Get(context.Background(), m, g, "b")
		require.EqualError(t, err, "secret b: not found")
		var missing *secrets.NotFoundError
		require.True(t, errdefs.IsNotFound(err) || errors.As(err, &missing) && missing.ID == "b")
	}
	_, err = secrets.Get(t.Context(), m, nil, "b")
	require.ErrorIs(t, err, session.ErrNoSession)
}
