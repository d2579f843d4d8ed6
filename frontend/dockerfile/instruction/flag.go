package instruction

import (
	"fmt"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/suggest"
)

// flags are the flags that an instruction knows, in the order in which they are suggested.
type flags struct {
	known []flag
}

type flag struct {
	name string
	set  func(value string, given bool) error
	// many flags may be repeated.
	many bool
	seen bool
}

func (f *flags) str(dst *string, name string) {
	f.known = append(f.known, flag{name: name, set: func(v string, given bool) error {
		if !given {
			return missingValue(name)
		}
		*dst = v
		return nil
	}})
}

func (f *flags) strs(dst *[]string, name string) {
	f.known = append(f.known, flag{name: name, many: true, set: func(v string, given bool) error {
		if !given {
			return missingValue(name)
		}
		*dst = append(*dst, v)
		return nil
	}})
}

func (f *flags) boolean(dst *bool, name string) {
	f.known = append(f.known, flag{name: name, set: func(v string, given bool) error {
		switch strings.ToLower(v) {
		case "true":
			*dst = true
		case "false":
			*dst = false
		default:
			if given {
				return fmt.Errorf("expecting boolean value for flag --%s, not: %s", name, v)
			}
			*dst = true
		}
		return nil
	}})
}

// optional is a boolean that knows whether it was given.
func (f *flags) optional(dst **bool, name string) {
	var v bool
	f.boolean(&v, name)
	set := f.known[len(f.known)-1].set
	f.known[len(f.known)-1].set = func(value string, given bool) error {
		*dst = &v
		return set(value, given)
	}
}

func missingValue(name string) error { return fmt.Errorf("missing a value on flag: --%s", name) }

func (f *flags) parse(args []string) error {
	for _, arg := range args {
		name, value, given := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		fl := f.find(name)
		if fl == nil {
			return suggest.Wrap(fmt.Errorf("unknown flag: --%s", name), name, f.names())
		}
		if fl.seen && !fl.many {
			return fmt.Errorf("duplicate flag specified: --%s", name)
		}
		fl.seen = true
		if err := fl.set(value, given); err != nil {
			return err
		}
	}
	return nil
}

func (f *flags) find(name string) *flag {
	for i := range f.known {
		if f.known[i].name == name {
			return &f.known[i]
		}
	}
	return nil
}

func (f *flags) names() []string {
	names := make([]string, 0, len(f.known))
	for _, fl := range f.known {
		names = append(names, fl.name)
	}
	return names
}
