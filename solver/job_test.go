package solver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/solver/feed"
)

func TestRemoteCachesThatAreNotThereAreToldOnce(t *testing.T) {
	j := &job{feed: feed.New("")}
	j.refuseImport(RemoteCache{Type: "registry", Attrs: map[string]string{"ref": "example.org/cache:1"}})
	j.refuseImport(RemoteCache{Type: "registry", Attrs: map[string]string{"ref": "example.org/cache:1"}})
	j.refuseImport(RemoteCache{Type: "tape"})
	j.feed.Close()
	vs := j.feed.Vertices()
	require.Len(t, vs, 2)
	require.Equal(t, "importing cache manifest from example.org/cache:1", vs[0].Name)
	require.Equal(t, "unknown cache importer: registry", vs[0].Error)
	require.Equal(t, "importing cache manifest from tape", vs[1].Name)
	require.Equal(t, "unknown cache importer: tape", vs[1].Error)
}

func TestTheTimeOfABuildIsThatOfItsExporters(t *testing.T) {
	req := Request{FrontendOpt: map[string]string{"build-arg:SOURCE_DATE_EPOCH": "17"}}
	require.Equal(t, map[string]string{"a": "b", "source-date-epoch": "17"}, exporterAttrs(req, map[string]string{"a": "b"}))
	require.Equal(t, map[string]string{"source-date-epoch": ""}, exporterAttrs(req, map[string]string{"source-date-epoch": ""}))
	req.FrontendOpt["build-arg:SOURCE_DATE_EPOCH"] = "context"
	require.Nil(t, exporterAttrs(req, nil))
}
