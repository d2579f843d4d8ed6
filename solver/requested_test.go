package solver

import (
	"encoding/json"
	"testing"

	"github.com/containerd/platforms"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
)

// resultFor returns a result with a tree for each platform, or one that has no list of them.
func resultFor(t *testing.T, names ...string) *gateway.Result {
	t.Helper()
	res := &gateway.Result{}
	var list exporter.Platforms
	for _, name := range names {
		list.Platforms = append(list.Platforms, exporter.Platform{ID: name, Platform: platforms.MustParse(name)})
		res.AddRef(name, nil)
	}
	if len(names) > 0 {
		data, err := json.Marshal(list)
		require.NoError(t, err)
		res.Metadata = map[string][]byte{exporter.KeyPlatforms: data}
	}
	return res
}

func TestPlatformsOfAResultAreComparedWithThoseRequested(t *testing.T) {
	config := func(platform string) *gateway.Result {
		return &gateway.Result{Metadata: map[string][]byte{exporter.KeyConfig: []byte(platform)}}
	}
	const arm = `{"os":"linux","architecture":"arm64","variant":"v8"}`
	for name, tc := range map[string]struct {
		requested string
		res       *gateway.Result
		want      []string
	}{
		"nothing requested":            {"", resultFor(t, "linux/arm64"), nil},
		"what was requested":           {"linux/arm64,linux/amd64", resultFor(t, "linux/amd64", "linux/arm64"), nil},
		"the default":                  {"linux/amd64", resultFor(t), nil},
		"as the config says":           {"linux/arm64", config(arm), nil},
		"a version that nobody asked":  {"windows/amd64", config(`{"os":"windows","architecture":"amd64","os.version":"10.0.1"}`), nil},
		"no platform":                  {"", config(`{}`), nil},
		"another":                      {"linux/arm64", resultFor(t), []string{`Requested platform "linux/arm64" does not match result platform "linux/amd64"`}},
		"another in the config":        {"linux/amd64", config(arm), []string{`Requested platform "linux/amd64" does not match result platform "linux/arm64"`}},
		"another in the list":          {"linux/amd64", resultFor(t, "linux/s390x"), []string{`Requested platform "linux/amd64" does not match result platform "linux/s390x"`}},
		"several, one result":          {"linux/amd64,linux/arm64", resultFor(t), []string{"Multiple platforms requested but result is not multi-platform"}},
		"too few":                      {"linux/arm64,linux/amd64", resultFor(t, "linux/amd64"), []string{"Requested platforms linux/amd64,linux/arm64 do not match result platforms linux/amd64"}},
		"others":                       {"linux/arm64,linux/amd64", resultFor(t, "linux/amd64", "linux/s390x"), []string{"Requested platforms linux/amd64,linux/arm64 do not match result platforms linux/amd64,linux/s390x"}},
		"one twice":                    {"linux/amd64,linux/amd64/v1", resultFor(t), []string{`Duplicate platform result requested "linux/amd64"`}},
		"a list that exporters refuse": {"linux/amd64", config("{"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := checkPlatforms(tc.requested, tc.res, platforms.MustParse("linux/amd64"))
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}

	got, err := checkPlatforms("linux/amd64,li nux", resultFor(t), platforms.MustParse("linux/amd64"))
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Regexp(t, `^Invalid platform result requested "li nux": `, got[0])
}

func TestTreesOfSeveralPlatformsHaveToBeTold(t *testing.T) {
	res := resultFor(t, "linux/amd64", "linux/arm64")
	res.Metadata = nil
	_, err := checkPlatforms("linux/amd64", res, platforms.MustParse("linux/amd64"))
	require.EqualError(t, err, "build result contains multiple refs without platforms mapping")
}
