package provenance

import (
	"maps"
	"slices"
	"strings"

	"github.com/openbuildkit/buildkit/api/redact"
)

// configSource is where a build's description is: a remote context, and the file in it.
type configSource struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
	// The versions name the file differently.
	Path       string `json:"path,omitempty"`
	EntryPoint string `json:"entryPoint,omitempty"`
}

type parameters struct {
	Frontend      string                        `json:"frontend,omitempty"`
	Args          map[string]string             `json:"args,omitempty"`
	Secrets       []optional                    `json:"secrets,omitempty"`
	SSH           []optional                    `json:"ssh,omitempty"`
	Locals        []local                       `json:"locals,omitempty"`
	Inputs        map[string]*requestProvenance `json:"inputs,omitempty"`
	Root          *requestProvenance            `json:"root,omitempty"`
	Compatibility int                           `json:"compatibilityVersion,omitempty"`
}

type optional struct {
	ID       string `json:"id"`
	Optional bool   `json:"optional,omitempty"`
}

type local struct {
	Name string `json:"name"`
}

type requestProvenance struct {
	ConfigSource configSource `json:"configSource"`
	Request      *parameters  `json:"request,omitempty"`
}

// told is a request as it is told.
type told struct {
	source configSource
	params parameters
	vcs    map[string]string
	// whole tells that nothing was left out.
	whole bool
}

// hidden are options that say something of the machine and not of the result.
var hidden = []string{"cgroup-parent", "image-resolve-mode", "platform", "cache-imports"}

// builtinDockerfile is the name of the frontend for Dockerfiles that is no image.
const builtinDockerfile = "dockerfile.v0"

// uses reports whether a frontend had a part in a request.
func (r *Request) uses(frontend string) bool {
	if r == nil {
		return false
	}
	if r.Frontend == frontend || r.Root.uses(frontend) {
		return true
	}
	for _, in := range r.Inputs {
		if in.uses(frontend) {
			return true
		}
	}
	return false
}

// tell returns a request with its options: those with a place of their own there, and without those
// that the mode leaves out. Context is found among the materials.
func tell(r *Request, materials []material, most bool) told {
	t := told{params: parameters{Frontend: r.Frontend}, whole: true, vcs: map[string]string{}}
	args := map[string]string{}
	for k, v := range r.Options {
		if slices.Contains(hidden, k) || strings.HasPrefix(k, "attest:") {
			continue
		}
		if !most && (strings.HasPrefix(k, "build-arg:") || strings.HasPrefix(k, "label:")) {
			t.whole = false
			continue
		}
		args[k] = redact.Option(k, v)
	}
	context := "context"
	if key := args["contextkey"]; key != "" {
		context = key
	}
	if uri := args[context]; uri != "" {
		t.source.URI = uri
		name := withoutFolder(uri)
		for _, m := range materials {
			if m.URI == uri || m.URI == name {
				t.source.Digest = m.Digest
			}
		}
		delete(args, context)
	}
	if name := args["filename"]; name != "" {
		t.source.Path = name
		delete(args, "filename")
	}
	for k, v := range args {
		if name, ok := strings.CutPrefix(k, "vcs:"); ok {
			delete(args, k)
			if v != "" {
				t.vcs[name] = v
			}
		}
	}
	if len(args) > 0 {
		t.params.Args = args
	}
	for name, in := range r.Inputs {
		if t.params.Inputs == nil {
			t.params.Inputs = map[string]*requestProvenance{}
		}
		own := t.nested(in, materials, most)
		t.params.Inputs[name] = own
	}
	if r.Root != nil {
		t.params.Root = t.nested(r.Root, materials, most)
	}
	return t
}

// withoutFolder returns the url of a repository, with a branch, a tag or a commit behind a hash and a folder
// behind that, without the folder: materials have none.
func withoutFolder(uri string) string {
	remote, fragment, _ := strings.Cut(uri, "#")
	ref, _, _ := strings.Cut(fragment, ":")
	if ref == "" {
		return remote
	}
	return remote + "#" + ref
}

// nested returns a request within another.
func (t *told) nested(r *Request, materials []material, most bool) *requestProvenance {
	if r == nil {
		return &requestProvenance{Request: &parameters{}}
	}
	own := tell(r, materials, most)
	t.whole = t.whole && own.whole
	maps.Copy(t.vcs, own.vcs)
	return &requestProvenance{ConfigSource: own.source, Request: &own.params}
}

func optionals(ids map[string]bool) []optional {
	var all []optional
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		all = append(all, optional{id, ids[id]})
	}
	return all
}
