package history

import (
	"encoding/json"

	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/api/redact"
)

// redacted returns a copy of a record without the credentials that options may hold.
func redacted(rec *Record) *Record {
	out, _ := proto.Clone(rec).(*Record)
	out.Frontend = giturl.Redact(out.GetFrontend())
	out.FrontendAttrs = redact.Map(out.GetFrontendAttrs())
	if imports, ok := out.GetFrontendAttrs()["cache-imports"]; ok {
		out.FrontendAttrs["cache-imports"] = redactedCaches(imports)
	}
	for _, e := range out.GetExporters() {
		e.Type = giturl.Redact(e.GetType())
		e.Attrs = redact.Map(e.GetAttrs())
		redact.Options(e.Attrs)
	}
	return out
}

// redactedCaches hides the credentials in the list of caches that clients pass to frontends.
func redactedCaches(text string) string {
	var caches []struct {
		Type  string
		Attrs map[string]string
	}
	if json.Unmarshal([]byte(text), &caches) != nil {
		return redact.Hidden
	}
	for i := range caches {
		redact.Options(caches[i].Attrs)
	}
	out, err := json.Marshal(caches)
	if err != nil {
		return redact.Hidden
	}
	return string(out)
}
