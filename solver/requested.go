package solver

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
)

// platformOpt is the option of frontends with the platforms that are asked for, after commas.
const platformOpt = "platform"

var errNoMapping = errors.New("build result contains multiple refs without platforms mapping")

// warnOfPlatforms tells the user if the result is not for the platforms that were asked for. That
// is no error: a frontend may have its reasons. The warnings stand with the first exporter, or
// with a vertex of their own if there is none.
func (j *job) warnOfPlatforms(res *gateway.Result) error {
	warnings, err := checkPlatforms(j.requestedPlatforms(), res, j.solver.platform())
	if err != nil || len(warnings) == 0 {
		return err
	}
	if len(j.outputs) > 0 {
		j.exportWarnings = append(j.exportWarnings, warnings...)
		return nil
	}
	scope := event.NewScope(j.feed, digest.FromString(j.req.Ref+"-verify"))
	done := scope.Start("Verifying build result", nil)
	warn(scope, warnings)
	return done(nil)
}

func warn(scope event.Scope, warnings []string) {
	for _, w := range warnings {
		scope.Warn(event.Warning{Short: []byte(w)})
	}
}

// requestedPlatforms returns the option of the request or, as clients that run the frontend
// themselves may leave it out there, of the first frontend that was asked for.
func (j *job) requestedPlatforms() string {
	if p := j.req.FrontendOpt[platformOpt]; p != "" {
		return p
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.frontendOpts[platformOpt]
}

// checkPlatforms returns what is to be said about a result when the platforms requested, separated
// by commas, were asked for. A result that does not tell its platform is for def.
func checkPlatforms(requested string, res *gateway.Result, def ocispec.Platform) ([]string, error) {
	if requested == "" {
		return nil, nil
	}
	if _, mapped := res.Metadata[exporter.KeyPlatforms]; !mapped && len(res.Refs) > 1 {
		return nil, errNoMapping
	}
	wanted, warnings := parseRequested(requested)
	got, ok := resultPlatforms(res, def)
	if len(wanted) == 0 || !ok {
		return warnings, nil // exporters tell what is wrong with the result
	}
	for i, w := range wanted {
		if w.OSVersion != "" {
			continue
		}
		for k, g := range got {
			g.OSVersion = ""
			if platforms.FormatAll(g) == platforms.FormatAll(w) {
				got[k] = wanted[i]
			}
		}
	}
	w, g := names(wanted), names(got)
	switch multi := res.Refs != nil; {
	case !multi && len(w) > 1:
		warnings = append(warnings, "Multiple platforms requested but result is not multi-platform")
	case slices.Equal(w, g):
	case len(w) == 1 && len(g) == 1:
		warnings = append(warnings, fmt.Sprintf("Requested platform %q does not match result platform %q", w[0], g[0]))
	default:
		warnings = append(warnings, fmt.Sprintf("Requested platforms %s do not match result platforms %s", strings.Join(w, ","), strings.Join(g, ",")))
	}
	return warnings, nil
}

// parseRequested returns the platforms of a list, each once, and warnings about the others.
func parseRequested(list string) (wanted []ocispec.Platform, warnings []string) {
	seen := map[string]bool{}
	for name := range strings.SplitSeq(list, ",") {
		p, err := platforms.Parse(name)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("Invalid platform result requested %q: %s", name, err))
			continue
		}
		p = platforms.Normalize(p)
		id := platforms.FormatAll(p)
		if seen[id] {
			warnings = append(warnings, fmt.Sprintf("Duplicate platform result requested %q", id))
			continue
		}
		seen[id] = true
		wanted = append(wanted, p)
	}
	return wanted, warnings
}

// resultPlatforms returns the platforms that a result is for; false if it does not say it well.
func resultPlatforms(res *gateway.Result, def ocispec.Platform) ([]ocispec.Platform, bool) {
	trees := exporter.Result{Metadata: res.Metadata}
	if res.Refs != nil {
		trees.Refs = map[string]*cache.Ref{}
		for id := range res.Refs {
			trees.Refs[id] = nil
		}
	}
	parts, err := trees.Parts(def)
	if err != nil {
		return nil, false
	}
	got := make([]ocispec.Platform, len(parts))
	for i, p := range parts {
		got[i] = platforms.Normalize(p.Platform.Platform)
	}
	return got, true
}

// names returns the names of platforms, sorted.
func names(ps []ocispec.Platform) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = platforms.FormatAll(p)
	}
	slices.Sort(out)
	return out
}
