package registry

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// withScopes returns a context in which tokens are asked for with the scopes.
func withScopes(ctx context.Context, scopes ...string) context.Context {
	for _, s := range scopes {
		ctx = docker.WithScope(ctx, s)
	}
	return ctx
}

func pullScope(path string) string { return "repository:" + path + ":pull" }
func pushScope(path string) string { return "repository:" + path + ":pull,push" }

// mergeScopes returns scopes with the actions of one resource joined, sorted, so that requests
// for the same things share a token. A scope is type:name:action,... by the distribution
// specification; the name may hold colons. What has another form stays as it is.
func mergeScopes(scopes []string) []string {
	actions := map[string][]string{}
	var merged []string
	for _, s := range scopes {
		end := strings.LastIndexByte(s, ':')
		if s == "" || strings.ContainsAny(s, " \t") {
			continue
		}
		if end <= 0 || strings.IndexByte(s, ':') == end {
			merged = append(merged, s)
			continue
		}
		resource := s[:end]
		actions[resource] = append(actions[resource], strings.Split(s[end+1:], ",")...)
	}
	for resource, all := range actions {
		slices.Sort(all)
		merged = append(merged, resource+":"+strings.Join(slices.Compact(all), ","))
	}
	slices.Sort(merged)
	return slices.Compact(merged)
}

// tentative marks requests that may be refused without harm: the refusal is not held against the
// credentials, and the scopes that the registry names are not asked for again.
func tentative(ctx context.Context) context.Context {
	return context.WithValue(ctx, tentativeKey{}, true)
}

func isTentative(ctx context.Context) bool { return ctx.Value(tentativeKey{}) != nil }

type tentativeKey struct{}
