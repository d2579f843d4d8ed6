package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/session"
)

// strict serves a manifest and a layer to ann, and denies everybody else with a status.
func strict(t *testing.T, denial int) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch user, _, ok := req.BasicAuth(); {
		case !ok:
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		case user != "ann":
			if denial == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			}
			w.WriteHeader(denial)
		case strings.Contains(req.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write([]byte(doc))
		default:
			_, _ = w.Write(payload)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// Who may not pull is told so, and whoever builds along may all the same.
func TestADenialIsOfThoseWhoWereAsked(t *testing.T) {
	users := fakeSessions{"ann": {user: "ann", secret: "pw"}, "nothing": {}}
	var strangers session.IDs
	for i := range 8 { // more than a request has attempts
		id := fmt.Sprint("bob", i)
		users[id] = &fakeAuth{user: id, secret: "pw"}
		strangers = append(strangers, id)
	}
	for _, denial := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		t.Run(fmt.Sprint("with status ", denial), func(t *testing.T) {
			addr := strict(t, denial)
			repository := func(ids session.Group) *registry.Repository {
				return registry.New(registry.Config{Sessions: users}).Repository(parse(t, addr+"/a/b:1"), ids)
			}
			t.Run("all are asked", func(t *testing.T) {
				repo := repository(append(strangers, "nothing", "ann"))
				_, err := repo.Resolve(t.Context())
				require.NoError(t, err)
				repo = repository(append(strangers, "nothing", "ann"))
				require.Equal(t, payload, readLayer(t, repo, payloadDesc(), 0))
			})
			t.Run("all are in the error", func(t *testing.T) {
				ids := append(strangers, "nothing")
				_, err := repository(ids).Resolve(t.Context())
				require.True(t, registry.IsDenied(err))
				require.ElementsMatch(t, ids, faulty(err))
				_, err = tryLayer(t, repository(ids), payloadDesc())
				require.True(t, registry.IsDenied(err))
				require.ElementsMatch(t, ids, faulty(err))
			})
			t.Run("one who comes later is asked, others once more", func(t *testing.T) {
				group := &members{ids: session.IDs{"bob0"}}
				repo := repository(group)
				_, err := repo.Resolve(t.Context())
				require.Equal(t, []string{"bob0"}, faulty(err))
				_, err = repo.Resolve(t.Context())
				require.Equal(t, []string{"bob0"}, faulty(err))
				group.ids = session.IDs{"bob0", "ann"}
				_, err = repo.Resolve(t.Context())
				require.NoError(t, err)
			})
		})
	}
	t.Run("nobody is to blame who has no part in it", func(t *testing.T) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
		defer s.Close()
		repo := registry.New(registry.Config{Sessions: users}).Repository(parse(t, strings.TrimPrefix(s.URL, "http://")+"/a/b:1"), session.IDs{"ann"})
		_, err := repo.Resolve(t.Context())
		require.True(t, registry.IsDenied(err))
		require.Empty(t, faulty(err), "it wants no credentials")
	})
}

func tryLayer(t *testing.T, repo *registry.Repository, desc ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	rc, err := repo.Source(event.Scope{}).Open(t.Context(), desc, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// members is a group that changes.
type members struct{ ids session.IDs }

func (m *members) SessionIDs() []string { return m.ids.SessionIDs() }

func faulty(err error) (ids []string) {
	for _, f := range session.Faults(err) {
		ids = append(ids, f.ID)
	}
	return ids
}
