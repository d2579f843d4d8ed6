package lower

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/client/llb"
)

// buildContext is the tree of the build context. Which paths of it are needed is known only when
// all stages are lowered, so the State waits for Marshal.
type buildContext struct {
	state llb.State
	paths map[string]struct{}
	all   bool
}

func newBuildContext(tree func(paths []string) llb.State) *buildContext {
	c := &buildContext{paths: map[string]struct{}{}}
	c.state = llb.Scratch().Async(func(context.Context, llb.State, llb.Constraints) (llb.State, error) {
		if c.all {
			return tree(nil), nil
		}
		return tree(sortedKeys(c.paths)), nil
	})
	return c
}

// need notes that a clean absolute path of the context is read.
func (c *buildContext) need(p string) {
	if p == "/" {
		c.all = true
		return
	}
	c.paths[strings.TrimPrefix(p, "/")] = struct{}{}
}

// NamedContext is a source that replaces stages and images of a name.
type NamedContext struct {
	// Name is as given by the client, with a platform after "::" if it has one.
	Name string
	// Spec says what it is, such as "docker-image://alpine" or "local:src".
	Spec string
}

// NamedContexts are the named contexts by name.
type NamedContexts map[string]string

// Lookup finds the context for a stage or image, rather one for the platform than one for all;
// nil if there is none.
func (n NamedContexts) Lookup(name string, p ocispec.Platform) *NamedContext {
	if len(n) == 0 || name == "" {
		return nil
	}
	if ref, err := reference.ParseNormalizedNamed(name); err == nil {
		name = strings.TrimSuffix(reference.FamiliarString(ref), ":latest")
	}
	for _, key := range []string{name + "::" + platforms.Format(platforms.Normalize(p)), name} {
		if spec, ok := n[key]; ok {
			return &NamedContext{Name: key, Spec: spec}
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
