package history

import (
	"encoding/json"
	"slices"
	"strings"

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

// secretWords are what keys of options of remote caches and exporters have in them whose values are
// credentials: ghtoken, session_token, secret_access_key. There are types of others too.
var secretWords = []string{"token", "secret", "password", "access_key"}

func redactKeys(attrs map[string]string) {
	for key := range attrs {
		if slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(strings.ToLower(key), word) }) {
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
