package redact

import (
	"regexp"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/api/giturl"
)

// secretWords are what keys of options of remote caches and exporters have in them whose values are
// credentials: ghtoken, session_token, secret_access_key. There are types of others too.
var secretWords = []string{"token", "secret", "password", "access_key"}

// Options hides the credentials in options of a remote cache or an exporter, in place.
func Options(attrs map[string]string) {
	for key := range attrs {
		if slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(strings.ToLower(key), word) }) {
			attrs[key] = Hidden
		}
	}
}

// secretKey is a key of such an option in text. Flags, as --secret is one, begin with other characters.
var secretKey = `((?:[a-z][\w.-]*)?(?:` + strings.Join(secretWords, "|") + `)[\w.-]*)=`

// option is a credential in a list of options with commas between them, quoted or not.
var option = regexp.MustCompile(`(?i)(^|[,="])` + secretKey + `("[^"]*"|[^,"]*)`)

// quoted is one in an option that is quoted as a whole, where commas end nothing.
var quoted = regexp.MustCompile(`(?i)"` + secretKey + `[^"]*`)

// Args returns arguments of a command without credentials.
func Args(args []string) []string {
	out := make([]string, 0, len(args))
	for _, arg := range args {
		arg = quoted.ReplaceAllString(arg, `"${1}=`+Hidden)
		arg = option.ReplaceAllString(arg, "${1}${2}="+Hidden)
		out = append(out, giturl.Redact(argument(arg)))
	}
	return out
}

// argument returns an argument of a command with its build argument, if it has one, redacted.
func argument(arg string) string {
	flag, setting, ok := strings.Cut(arg, buildArg)
	if !ok || flag != "" && !strings.HasSuffix(flag, "=") {
		return arg
	}
	name, value, ok := strings.Cut(setting, "=")
	if !ok {
		return arg
	}
	return flag + buildArg + name + "=" + Option(buildArg+name, value)
}
