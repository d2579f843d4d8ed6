package lower

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// EpochArg is the build argument with the time of everything that is made.
const EpochArg = "SOURCE_DATE_EPOCH"

var (
	errEpochScratch = errors.New(EpochArg + " stage must use FROM scratch")
	errEpochAdd     = errors.New(EpochArg + " stage must contain exactly one remote ADD")
)

// Epoch returns what SOURCE_DATE_EPOCH is set to: by the build, else by the default of a global
// argument. Empty is not set.
func (b *Build) Epoch() string {
	if value, ok := b.opt.BuildArgs[EpochArg]; ok {
		return value
	}
	if !b.declared[EpochArg] {
		return ""
	}
	value, _ := b.args.Get(EpochArg)
	return value
}

// SetEpoch sets the time of the image, of its history and of what instructions make themselves:
// directories and inline documents. Copied files keep their own times. It is called before
// Finish; nil is no time.
func (b *Build) SetEpoch(t *time.Time) { b.epoch = t }

// EpochSource returns the url that the stage called name adds, for a stage that stands for the
// time of what is at that url. ok is false if there is no such stage; a stage that does anything
// else is an error.
func (b *Build) EpochSource(name string) (url string, ok bool, err error) {
	s := b.find(name, len(b.stages))
	if s == nil {
		return "", false, nil
	}
	if s.base != nil || s.named != nil || s.from != instruction.Scratch {
		return "", true, parser.WithLocation(errEpochScratch, s.location)
	}
	env := newVars()
	for _, c := range s.cmds {
		switch inst := c.inst.(type) {
		case *instruction.Arg:
			err = b.epochArgs(env, inst)
		case *instruction.Add:
			if url != "" {
				err = errEpochAdd
				break
			}
			url, err = b.epochURL(env, inst)
		default:
			err = fmt.Errorf("%s stage contains unsupported %s instruction", EpochArg, strings.ToUpper(c.inst.Node().Name))
		}
		if err != nil {
			return "", true, parser.Locate(err, c.inst.Location())
		}
	}
	if url == "" {
		return "", true, parser.WithLocation(errEpochAdd, s.location)
	}
	return url, true, nil
}

func (b *Build) epochArgs(env *vars, arg *instruction.Arg) error {
	values := make([]*string, len(arg.Args))
	for i, a := range arg.Args {
		var def *string
		if a.Default != nil {
			r, err := b.expandWith(b.lex.word(), *a.Default, env)
			if err != nil {
				return err
			}
			def = &r.Text
		}
		values[i] = b.argValue(a.Name, def)
	}
	for i, a := range arg.Args {
		if values[i] != nil {
			env.set(a.Name, *values[i])
		}
	}
	return nil
}

// epochURL returns the only source of an ADD, which has to be a url.
func (b *Build) epochURL(env *vars, add *instruction.Add) (string, error) {
	if len(add.Sources) != 1 || len(add.Contents) > 0 {
		return "", errEpochAdd
	}
	url, err := b.lex.word().Word(add.Sources[0], env)
	if err == nil && !isHTTPURL(url) && !IsGitURL(url) {
		err = errEpochAdd
	}
	return url, err
}
