package registry

import (
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strings"
)

// nextPage returns where a list goes on by the Link headers of the page at a URL (RFC 8288); nil if
// the page is the last one. Pages are on one host.
func nextPage(at *url.URL, links []string) (*url.URL, error) {
	for _, header := range links {
		for rest := header; ; {
			var target, params string
			var ok bool
			if _, rest, ok = strings.Cut(rest, "<"); !ok {
				break
			}
			if target, rest, ok = strings.Cut(rest, ">"); !ok {
				break
			}
			params, rest = cutParams(rest)
			if !isNext(params) {
				continue
			}
			next, err := at.Parse(target)
			if err != nil {
				return nil, fmt.Errorf("next page of %s: %w", redactURL(at), err)
			}
			if next.Scheme != at.Scheme || next.Host != at.Host || next.User != nil {
				return nil, fmt.Errorf("next page of %s: it is on the other host %s", redactURL(at), printable(next.Host))
			}
			return next, nil
		}
	}
	return nil, nil
}

// cutParams cuts a header behind the parameters of its first link, which end at a comma that is not
// quoted.
func cutParams(s string) (params, rest string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// isNext reports whether parameters are those of a link to the next page. They have the form of
// those of media types.
func isNext(params string) bool {
	_, values, err := mime.ParseMediaType("link" + params)
	return err == nil && slices.ContainsFunc(strings.Fields(values["rel"]), func(rel string) bool {
		return strings.EqualFold(rel, "next")
	})
}
