package exporter_test

import (
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
)

var amd64 = platforms.MustParse("linux/amd64")

func TestParts(t *testing.T) {
	two := map[string]*cache.Ref{"a": nil, "b": nil}
	for name, tc := range map[string]struct {
		res  exporter.Result
		want []string
		err  string
	}{
		"nothing said": {want: []string{"linux/amd64=linux/amd64"}},
		"by the image config": {
			res:  exporter.Result{Metadata: map[string][]byte{exporter.KeyConfig: []byte(`{"os":"linux","architecture":"arm","variant":"v7"}`)}},
			want: []string{"linux/arm/v7=linux/arm/v7"},
		},
		"config without platform": {
			res:  exporter.Result{Metadata: map[string][]byte{exporter.KeyConfig: []byte(`{}`)}},
			want: []string{"linux/amd64=linux/amd64"},
		},
		"config without os": {
			res: exporter.Result{Metadata: map[string][]byte{exporter.KeyConfig: []byte(`{"architecture":"arm"}`)}},
			err: "os and architecture must be specified together",
		},
		"a mapping in its order": {
			res: exporter.Result{Refs: two, Metadata: map[string][]byte{exporter.KeyPlatforms: []byte(
				`{"Platforms":[{"ID":"b","Platform":{"os":"linux","architecture":"arm64"}},{"ID":"a","Platform":{"os":"linux","architecture":"s390x"}}]}`)}},
			want: []string{"b=linux/arm64", "a=linux/s390x"},
		},
		"refs without mapping": {res: exporter.Result{Refs: two}, err: "build result contains multiple refs without platforms mapping"},
		"an id without tree": {
			res: exporter.Result{Refs: map[string]*cache.Ref{"x": nil}, Metadata: map[string][]byte{exporter.KeyPlatforms: []byte(
				`{"Platforms":[{"ID":"b","Platform":{"os":"linux","architecture":"arm64"}}]}`)}},
			err: "failed to find ref for ID b",
		},
		"no JSON":    {res: exporter.Result{Metadata: map[string][]byte{exporter.KeyPlatforms: []byte(`x`)}}, err: "failed to parse platforms"},
		"empty list": {res: exporter.Result{Metadata: map[string][]byte{exporter.KeyPlatforms: []byte(`{}`)}}, err: "invalid empty platforms"},
		"empty id": {
			res: exporter.Result{Metadata: map[string][]byte{exporter.KeyPlatforms: []byte(`{"Platforms":[{"Platform":{"os":"linux","architecture":"arm64"}}]}`)}},
			err: "invalid empty platform key for exporter",
		},
		"no architecture": {
			res: exporter.Result{Metadata: map[string][]byte{exporter.KeyPlatforms: []byte(`{"Platforms":[{"ID":"x","Platform":{"os":"linux"}}]}`)}},
			err: "invalid platform value",
		},
	} {
		t.Run(name, func(t *testing.T) {
			parts, err := tc.res.Parts(amd64)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			var got []string
			for _, p := range parts {
				got = append(got, p.ID+"="+platforms.Format(p.Platform.Platform))
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func TestEpoch(t *testing.T) {
	res := &exporter.Result{Metadata: map[string][]byte{
		exporter.KeyEpoch: []byte("10"), exporter.KeyEpoch + "/b": []byte("20"),
	}}
	for name, tc := range map[string]struct {
		attr *string
		id   string
		want int64
		err  bool
	}{
		"of the result":                 {id: "a", want: 10},
		"of the platform":               {id: "b", want: 20},
		"of the attribute":              {attr: new("30"), id: "b", want: 30},
		"unset by the attribute":        {attr: new(""), id: "b"},
		"that is no number":             {attr: new("now"), err: true},
		"beyond what JSON can hold":     {attr: new("999999999999999"), err: true},
		"beyond what a number can hold": {attr: new("99999999999999999999"), err: true},
	} {
		t.Run(name, func(t *testing.T) {
			var e exporter.Epoch
			var err error
			if tc.attr != nil {
				e, err = exporter.ParseEpoch(*tc.attr)
				require.Equal(t, tc.err, err != nil)
				if err != nil {
					return
				}
			}
			got, err := e.Time(res, tc.id)
			require.NoError(t, err)
			if tc.want == 0 {
				require.Nil(t, got)
				return
			}
			require.Equal(t, time.Unix(tc.want, 0).UTC(), *got)
		})
	}
}

func TestAttributes(t *testing.T) {
	_, err := exporter.ParseBool("push", "often")
	require.EqualError(t, err, `non-bool value specified for push: strconv.ParseBool: parsing "often": invalid syntax`)
	b, err := exporter.ParseBool("push", "")
	require.NoError(t, err)
	require.True(t, b)
	_, err = exporter.ParseInt("compression-level", "much")
	require.EqualError(t, err, `non-integer value much specified for compression-level: strconv.ParseInt: parsing "much": invalid syntax`)
	_, err = exporter.Registry{}.Resolve("floppy", nil, compat.Current)
	require.EqualError(t, err, `exporter "floppy" could not be found`)
}

func FuzzPlatforms(f *testing.F) {
	f.Add([]byte(`{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}}]}`), []byte(`{"os":"linux"}`))
	f.Fuzz(func(t *testing.T, mapping, config []byte) {
		res := &exporter.Result{Metadata: map[string][]byte{exporter.KeyPlatforms: mapping, exporter.KeyConfig: config}}
		_, _ = res.Parts(amd64)
		delete(res.Metadata, exporter.KeyPlatforms)
		_, _ = res.Parts(amd64)
	})
}
