package history

import (
	"encoding/json"

	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/api/redact"
)

// hidden stands where a credential was.
const hidden = "xxxxx"

// redacted returns a copy of a record without the credentials that options may hold.
func redacted(rec *Record) *Record {
	out, _ := proto.Clone(rec).(*Record)
	out.FrontendAttrs = redact.Map(out.GetFrontendAttrs())
	if imports, ok := out.GetFrontendAttrs()["cache-imports"]; ok {
		out.FrontendAttrs["cache-imports"] = redactedCaches(imports)
	}
	for _, e := range out.GetExporters() {
		e.Type = giturl.Redact(e.GetType())
		e.Attrs = redact.Map(e.GetAttrs())
		redactKeys(e.Attrs)
	}
	return out
}

// secretKeys are those of options of remote caches and exporters whose values are credentials.
var secretKeys = []string{"token", "ghtoken", "access_key_id", "secret_access_key", "session_token"}

func redactKeys(attrs map[string]string) {
	for _, key := range secretKeys {
		if _, ok := attrs[key]; ok {
			attrs[key] = hidden
		}
	}
}

// redactedCaches hides the credentials in the list of caches that clients pass to frontends.
func redactedCaches(text string) string {
	var caches []struct {
		Type  string
		Attrs map[string]string
	}
	if json.Unmarshal([]byte(text), &caches) != nil {
		return hidden
	}
	for i := range caches {
		redactKeys(caches[i].Attrs)
	}
	out, err := json.Marshal(caches)
	if err != nil {
		return hidden
	}
	return string(out)
}
