package history

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/log"
	"google.golang.org/protobuf/proto"
)

const (
	// maxRecord is about how many bytes a record may have, in any state: clients take messages of 16 MiB,
	// and all records are read to list some.
	maxRecord = 2 << 20
	// maxText bounds texts of a record that is too large, maxExporters their number.
	maxText      = 64 << 10
	maxExporters = 100
)

// bounded leaves out of a record what makes it too large: what is long of what the client or its frontend has
// said. Errors are whole in the blob of their details.
func bounded(rec *Record) {
	if proto.Size(rec) <= maxRecord {
		return
	}
	log.L.WithField("ref", rec.GetRef()).Warn("the record of a build is too large, long options and answers are left out")
	rec.Frontend = cut(rec.GetFrontend(), maxText)
	if rec.GetError() != nil {
		rec.Error.Message = cut(rec.GetError().GetMessage(), maxText)
	}
	const each = maxRecord / 4
	rec.FrontendAttrs = shortest(rec.GetFrontendAttrs(), each)
	rec.ExporterResponse = shortest(rec.GetExporterResponse(), each)
	rec.Exporters = rec.GetExporters()[:min(len(rec.GetExporters()), maxExporters)]
	for _, e := range rec.GetExporters() {
		e.Type = cut(e.GetType(), each/2/maxExporters)
		e.Attrs = shortest(e.GetAttrs(), each/2/maxExporters)
	}
	if proto.Size(rec) > maxRecord {
		rec.Result, rec.Results = nil, nil
	}
}

// cut returns the beginning of a text that is too long.
func cut(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "..."
}

// shortest returns as many of the entries as have room in so many bytes, the shortest ones.
func shortest(all map[string]string, room int) map[string]string {
	out := map[string]string{}
	for _, key := range slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a)+len(all[a]), len(b)+len(all[b])), cmp.Compare(a, b))
	}) {
		// Each takes some bytes beside its text.
		if room -= len(key) + len(all[key]) + 16; room < 0 {
			break
		}
		out[key] = all[key]
	}
	return out
}

// textOf returns text as messages can have it.
func textOf(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// textMap is textOf for all keys and values.
func textMap(all map[string]string) map[string]string {
	out := make(map[string]string, len(all))
	for k, v := range all {
		out[textOf(k)] = textOf(v)
	}
	return out
}
