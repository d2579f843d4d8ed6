package instruction

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// Arg declares build arguments.
type Arg struct {
	base
	Args []ArgPair
}

// ArgPair is one build argument. Default is nil if it has none.
type ArgPair struct {
	Name    string
	Default *string
}

// Doc returns the description of an argument in the comment above.
func (a *Arg) Doc(name string) string { return doc(a.node, name) }

func parseArg(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	if err := atLeastOne(node); err != nil {
		return nil, err
	}
	a := &Arg{base: base{node}}
	for _, p := range node.Pairs {
		if p.Key == "" {
			return nil, errors.New("ARG names can not be blank")
		}
		arg := ArgPair{Name: p.Key}
		if p.HasValue {
			arg.Default = &p.Value
		}
		a.Args = append(a.Args, arg)
	}
	return a, nil
}

// Env sets environment variables of later instructions and of the image.
type Env struct {
	base
	Pairs []parser.Pair
}

func parseEnv(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := checkPairs(node, f); err != nil {
		return nil, err
	}
	return &Env{base{node}, node.Pairs}, nil
}

// Label sets labels of the image.
type Label struct {
	base
	Pairs []parser.Pair
}

func parseLabel(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := checkPairs(node, f); err != nil {
		return nil, err
	}
	return &Label{base{node}, node.Pairs}, nil
}

func checkPairs(node *parser.Node, f *flags) error {
	if err := f.parse(node.Flags); err != nil {
		return err
	}
	if err := atLeastOne(node); err != nil {
		return err
	}
	for _, p := range node.Pairs {
		if p.Key == "" {
			return fmt.Errorf("%s names can not be blank", strings.ToUpper(node.Name))
		}
	}
	return nil
}

// Command is what RUN, CMD, ENTRYPOINT and HEALTHCHECK execute.
type Command struct {
	// Args are the words of the exec form, or the one text of the shell form; none is possible.
	Args []string
	// Shell tells the shell form.
	Shell bool
}

func commandOf(node *parser.Node, args []string) Command {
	return Command{Args: args, Shell: !node.JSON}
}

// Cmd sets the default command of the image.
type Cmd struct {
	base
	Command
}

func parseCmd(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	return &Cmd{base{node}, commandOf(node, node.Args)}, nil
}

// Entrypoint sets the program of the image.
type Entrypoint struct {
	base
	Command
}

func parseEntrypoint(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	return &Entrypoint{base{node}, commandOf(node, node.Args)}, nil
}

// Healthcheck sets how a container of the image is probed.
type Healthcheck struct {
	base
	// None switches off a check that is inherited; everything else is zero then.
	None bool
	Command
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

func parseHealthcheck(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	h := &Healthcheck{base: base{node}}
	var interval, timeout, startPeriod, startInterval, retries string
	f.str(&interval, "interval")
	f.str(&timeout, "timeout")
	f.str(&startPeriod, "start-period")
	f.str(&startInterval, "start-interval")
	f.str(&retries, "retries")
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	if err := atLeastOne(node); err != nil {
		return nil, err
	}
	switch kind, args := node.Args[0], node.Args[1:]; strings.ToUpper(kind) {
	case "NONE":
		if len(args) > 0 {
			return nil, errors.New("HEALTHCHECK NONE takes no arguments")
		}
		h.None = true
		return h, nil
	case "CMD":
		if len(args) == 0 {
			return nil, errors.New("Missing command after HEALTHCHECK CMD") //nolint:staticcheck // users and clients know this text
		}
		h.Command = commandOf(node, args)
	default:
		return nil, fmt.Errorf("Unknown type %q in HEALTHCHECK (try CMD)", kind) //nolint:staticcheck // users and clients know this text
	}
	for _, d := range []struct {
		dst         *time.Duration
		name, value string
	}{
		{&h.Interval, "interval", interval},
		{&h.Timeout, "timeout", timeout},
		{&h.StartPeriod, "start-period", startPeriod},
		{&h.StartInterval, "start-interval", startInterval},
	} {
		if err := parseInterval(d.dst, d.name, d.value); err != nil {
			return nil, err
		}
	}
	return h, h.parseRetries(retries)
}

func parseInterval(dst *time.Duration, name, value string) error {
	if value == "" {
		return nil
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return err
	}
	if d != 0 && d < time.Millisecond {
		return fmt.Errorf("Interval %q cannot be less than %s", name, time.Millisecond) //nolint:staticcheck // users and clients know this text
	}
	*dst = d
	return nil
}

func (h *Healthcheck) parseRetries(value string) error {
	if value == "" {
		return nil
	}
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return err
	}
	if n < 0 {
		return fmt.Errorf("--retries cannot be negative (%d)", n)
	}
	h.Retries = int(n)
	return nil
}

// Expose documents ports.
type Expose struct {
	base
	Ports []string
}

func parseExpose(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	if err := atLeastOne(node); err != nil {
		return nil, err
	}
	ports := slices.Clone(node.Args)
	slices.Sort(ports)
	return &Expose{base{node}, ports}, nil
}

// Maintainer sets the author of the image.
type Maintainer struct {
	base
	Author string
}

func parseMaintainer(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	arg, err := parseOne(node, f)
	return &Maintainer{base{node}, arg}, err
}

// Workdir sets the working directory of later instructions and of the image.
type Workdir struct {
	base
	Path string
}

func parseWorkdir(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	arg, err := parseOne(node, f)
	return &Workdir{base{node}, arg}, err
}

// User sets the user of later instructions and of the image.
type User struct {
	base
	User string
}

func parseUser(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	arg, err := parseOne(node, f)
	return &User{base{node}, arg}, err
}

// StopSignal sets the signal that stops a container of the image.
type StopSignal struct {
	base
	Signal string
}

func parseStopSignal(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	arg, err := parseOne(node, f)
	return &StopSignal{base{node}, arg}, err
}

func parseOne(node *parser.Node, f *flags) (string, error) {
	if err := f.parse(node.Flags); err != nil {
		return "", err
	}
	return exactlyOne(node)
}

// Volume declares mount points.
type Volume struct {
	base
	Paths []string
}

func parseVolume(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	if err := atLeastOne(node); err != nil {
		return nil, err
	}
	for _, p := range node.Args {
		if strings.TrimSpace(p) == "" {
			return nil, errors.New("VOLUME specified can not be an empty string")
		}
	}
	return &Volume{base{node}, node.Args}, nil
}

// Shell sets the program that runs commands in shell form.
type Shell struct {
	base
	Shell []string
}

func parseShell(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	if err := atLeastOne(node); err != nil {
		return nil, err
	}
	if !node.JSON {
		return nil, errors.New("SHELL requires the arguments to be in JSON form")
	}
	return &Shell{base{node}, node.Args}, nil
}

// Onbuild registers an instruction that runs when the image is the base of another stage.
type Onbuild struct {
	base
	// Trigger is the instruction as text, with its here-documents.
	Trigger string
}

func parseOnbuild(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	if err := atLeastOne(node); err != nil {
		return nil, err
	}
	if err := checkTrigger(node.Sub); err != nil {
		return nil, err
	}
	return &Onbuild{base{node}, node.Sub.Source()}, nil
}

func checkTrigger(node *parser.Node) error {
	switch node.Name {
	case "onbuild":
		return errors.New("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed") //nolint:staticcheck // users and clients know this text
	case "from", "maintainer":
		return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(node.Name))
	}
	return nil
}
