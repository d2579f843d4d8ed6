package lower

import (
	"cmp"
	"maps"
	"slices"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// Outline is what a target can be given.
type Outline struct {
	// Name and Description are those of the target.
	Name, Description string
	// Args are the global arguments that the names of needed bases use, then those of the target
	// and the stages that it continues, in the order of the file and each name once.
	Args []Parameter
	// Secrets and SSH are those of all stages that are built, by name.
	Secrets, SSH []Parameter
}

// Parameter is something that a build can be given.
type Parameter struct {
	Name        string
	Description string
	// Value is that of an argument in this build.
	Value string
	// Required tells that the build fails without it.
	Required bool
	Location []parser.Range
}

// parameters collects what stages take while they are lowered.
type parameters struct {
	secrets, ssh map[string]Parameter
}

func addParameter(to *map[string]Parameter, name string, required bool, at []parser.Range) {
	if *to == nil {
		*to = map[string]Parameter{}
	}
	p, known := (*to)[name]
	if !known {
		p = Parameter{Name: name, Location: at}
	}
	p.Required = p.Required || required
	(*to)[name] = p
}

// Outline may be called after Finish.
func (b *Build) Outline() Outline {
	o := Outline{
		Name:        b.target.src.Name,
		Description: b.target.src.Doc(),
		Args:        b.usedGlobals(),
		Secrets:     sortedParameters(b.params.secrets),
		SSH:         sortedParameters(b.params.ssh),
	}
	var chain []*stage
	for s := b.target; s != nil; s = s.base {
		chain = append(chain, s)
	}
	for _, s := range slices.Backward(chain) {
		o.Args = append(o.Args, s.argParams...)
	}
	o.Args = latest(o.Args)
	return o
}

// latest keeps of parameters with one name what is said last. The description may stand at any of
// them.
func latest(params []Parameter) []Parameter {
	var out []Parameter
	index := map[string]int{}
	for _, p := range params {
		i, known := index[p.Name]
		if !known {
			index[p.Name] = len(out)
			out = append(out, p)
			continue
		}
		p.Description = cmp.Or(p.Description, out[i].Description)
		out[i] = p
	}
	return out
}

func sortedParameters(m map[string]Parameter) []Parameter {
	return slices.SortedFunc(maps.Values(m), func(a, b Parameter) int { return cmp.Compare(a.Name, b.Name) })
}

// usedGlobals returns the global arguments that the FROM lines of the stages that are built name,
// themselves or through other arguments.
func (b *Build) usedGlobals() []Parameter {
	used := map[string]bool{}
	note := func(word string) {
		// Words that cannot be expanded were refused before.
		r, _ := b.lex.word().Expand(word, b.args)
		for _, name := range r.Matched {
			used[name] = true
		}
	}
	for _, s := range b.stages {
		if s.reached {
			note(s.src.Base)
			note(s.src.Platform)
		}
	}
	var out []Parameter
	for _, arg := range slices.Backward(b.opt.Dockerfile.Args) {
		for _, a := range slices.Backward(arg.Args) {
			if !used[a.Name] {
				continue
			}
			if a.Default != nil {
				note(*a.Default)
			}
			value, _ := b.args.Get(a.Name)
			out = append(out, argParameter(arg, a.Name, value))
		}
	}
	slices.Reverse(out)
	return out
}

func argParameter(arg *instruction.Arg, name, value string) Parameter {
	return Parameter{Name: name, Description: arg.Doc(name), Value: value, Location: arg.Location()}
}
