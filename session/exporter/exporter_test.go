package exporter_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session/exporter"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chooser wants an exporter for each tree, and fails with err.
type chooser struct {
	err      error
	response map[string]string
}

func (c *chooser) FindExporters(_ context.Context, metadata map[string][]byte, refs []string) ([]exporter.Request, error) {
	var all []exporter.Request
	for _, ref := range refs {
		all = append(all, exporter.Request{Type: "local", Attrs: map[string]string{"ref": ref, "k": string(metadata["k"])}})
	}
	return all, c.err
}

func (c *chooser) FinalizeExport(_ context.Context, response map[string]string) error {
	c.response = response
	return c.err
}

func TestAClientChoosesAndHears(t *testing.T) {
	c := &chooser{}
	m, s := sessiontest.Connect(t, exporter.NewProvider(c))
	found, err := exporter.Find(t.Context(), m, s.ID(), map[string][]byte{"k": []byte("v")}, []string{"a", "b"})
	require.NoError(t, err)
	require.Equal(t, []exporter.Request{
		{Type: "local", Attrs: map[string]string{"ref": "a", "k": "v"}}, {Type: "local", Attrs: map[string]string{"ref": "b", "k": "v"}},
	}, found)
	require.NoError(t, exporter.Finalize(t.Context(), m, s.ID(), map[string]string{"containerimage.digest": "d"}))
	require.Equal(t, map[string]string{"containerimage.digest": "d"}, c.response)
}

func TestOnlyClientsThatChooseCanFail(t *testing.T) {
	m, silent := sessiontest.Connect(t)
	for err, counts := range map[error]bool{
		errors.New("no"):                            true,
		status.New(codes.NotFound, "no"):            true,
		status.New(codes.Unimplemented, "not now"):  false,
		status.New(codes.Unavailable, "not to you"): false,
	} {
		s := sessiontest.Join(t, m, nil, exporter.NewProvider(&chooser{err: err}))
		_, ferr := exporter.Find(t.Context(), m, s.ID(), nil, nil)
		require.Equal(t, counts, ferr != nil, err)
		require.Equal(t, counts, exporter.Finalize(t.Context(), m, s.ID(), nil) != nil, err)
	}
	found, err := exporter.Find(t.Context(), m, silent.ID(), nil, nil)
	require.NoError(t, err)
	require.Empty(t, found)
	require.NoError(t, exporter.Finalize(t.Context(), m, silent.ID(), nil))
}
