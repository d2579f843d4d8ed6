package image

import (
	"testing"

	"github.com/containerd/platforms"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/exporter"
)

func TestAnnotationsGoWhereTheyAreMeantTo(t *testing.T) {
	type texts = map[string]string
	for name, tc := range map[string]struct {
		attrs    texts
		metadata texts
		// what arm64 gets, and the index
		manifest, descriptor, index, indexDescriptor texts
	}{
		"none": {},
		"every place": {
			attrs: texts{
				"annotation.a": "1", "annotation-manifest.b": "2", "annotation-manifest-descriptor.c": "3", "annotation-index.d": "4",
				"annotation-index-descriptor.e": "5",
			},
			manifest: texts{"a": "1", "b": "2"}, descriptor: texts{"c": "3"}, index: texts{"d": "4"}, indexDescriptor: texts{"e": "5"},
		},
		"one for a platform goes first": {
			attrs:    texts{"annotation[linux/arm64].a": "arm", "annotation.a": "all", "annotation[linux/amd64].a": "amd", "annotation-manifest-descriptor[linux/arm64].b": "x"},
			manifest: texts{"a": "arm"}, descriptor: texts{"b": "x"},
		},
		"a platform has several spellings": {
			attrs: texts{"annotation[linux/aarch64].a": "1", "annotation[linux/arm64/v8].b": "2"}, manifest: texts{"a": "1", "b": "2"},
		},
		"the result goes first": {
			attrs: texts{"annotation.a": "attr", "annotation.b": "attr"}, metadata: texts{"annotation.a": "result", "annotation-index.c": "result"},
			manifest: texts{"a": "result", "b": "attr"}, index: texts{"c": "result"},
		},
		"but not before one for a platform": {
			attrs: texts{"annotation[linux/arm64].a": "attr"}, metadata: texts{"annotation.a": "result"}, manifest: texts{"a": "attr"},
		},
		"keys have dots, slashes and brackets": {
			attrs: texts{"annotation.org.example/a[b]=": "1"}, manifest: texts{"org.example/a[b]=": "1"},
		},
		"what only looks like one is metadata": {attrs: texts{"annotations.a": "1", "annotation": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := ParseOptions(tc.attrs, compat.Current)
			require.NoError(t, err)
			res := &exporter.Result{Metadata: map[string][]byte{}}
			for k, v := range tc.metadata {
				res.Metadata[k] = []byte(v)
			}
			a, err := o.Annotations.merged(res)
			require.NoError(t, err)
			require.NoError(t, a.check([]exporter.Part{partOf("linux/amd64"), partOf("linux/arm64")}, true, true))
			id := formatID(partOf("linux/arm64"))
			require.Equal(t, tc.manifest, a.on(OnManifest, id))
			require.Equal(t, tc.descriptor, a.on(OnManifestDescriptor, id))
			require.Equal(t, tc.index, a.on(OnIndex, ""))
			require.Equal(t, tc.indexDescriptor, a.on(OnIndexDescriptor, ""))
		})
	}
}

func partOf(platform string) exporter.Part {
	return exporter.Part{Platform: exporter.Platform{ID: platform, Platform: platforms.MustParse(platform)}}
}

func TestAnnotationsWithoutAPlaceAreRefused(t *testing.T) {
	for want, tc := range map[string]struct {
		attr       string
		index, oci bool
	}{
		"invalid annotation: no platform linux/s390x found in source":            {"annotation[linux/s390x].a", true, true},
		"index annotations not supported for single platform export":             {"annotation-index.a", false, true},
		`cannot export annotations with "oci-mediatypes=false"`:                  {"annotation-index.a", true, false},
		`cannot export annotations with "oci-mediatypes=false"` + " on manifest": {"annotation-manifest-descriptor.a", true, false},
	} {
		t.Run(want, func(t *testing.T) {
			o, err := ParseOptions(map[string]string{tc.attr: "1"}, compat.Current)
			require.NoError(t, err)
			err = o.Annotations.check([]exporter.Part{partOf("linux/amd64")}, tc.index, tc.oci)
			require.Error(t, err)
			require.Contains(t, want, err.Error())
		})
	}
	_, err := Annotations{}.merged(&exporter.Result{Metadata: map[string][]byte{"annotation-blah.a": nil}})
	require.EqualError(t, err, "unrecognized annotation type blah")
}

func FuzzAnnotations(f *testing.F) {
	f.Add("annotation-index[linux/arm64].org.example.a")
	f.Add("annotation[].x")
	f.Fuzz(func(t *testing.T, key string) {
		var a Annotations
		known, err := a.parse(key, "v")
		if !known && (err != nil || len(a.all) > 0) {
			t.Fatal("read what is none")
		}
		if err == nil {
			_ = a.check([]exporter.Part{partOf("linux/amd64")}, true, true)
			_ = a.on(OnManifest, "linux/amd64")
		}
	})
}
