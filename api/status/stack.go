package status

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	stackpb "github.com/openbuildkit/buildkit/api/stack"
)

// StackError says where in a program err was made.
type StackError struct {
	Err error

	pcs   []uintptr
	stack *stackpb.Stack // of another program; nil if pcs are set
}

const maxFrames = 64

// WithStack adds the stack of the caller to err, unless one of this program is in its chain
// already; nil stays nil.
func WithStack(err error) error {
	if err == nil {
		return nil
	}
	var e *StackError
	if errors.As(err, &e) && e.pcs != nil {
		return err
	}
	pcs := make([]uintptr, maxFrames)
	const skip = 2 // runtime.Callers and this function
	return &StackError{Err: err, pcs: pcs[:runtime.Callers(skip, pcs)]}
}

func (e *StackError) Error() string { return e.Err.Error() }
func (e *StackError) Unwrap() error { return e.Err }

// Stack returns the stack, innermost call first, with the program that it was captured in.
func (e *StackError) Stack() *stackpb.Stack {
	if e.stack != nil {
		return e.stack
	}
	version, revision := buildVersion()
	s := &stackpb.Stack{Cmdline: os.Args, Pid: int32(os.Getpid()), Version: version, Revision: revision}
	frames := runtime.CallersFrames(e.pcs)
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") {
			s.Frames = append(s.Frames, &stackpb.Frame{Name: f.Function, File: f.File, Line: int32(f.Line)})
		}
		if !more {
			return s
		}
	}
}

func buildVersion() (version, revision string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return info.Main.Version, revision
}

// Stacks returns the stacks in the chain of err, innermost first.
func Stacks(err error) []*stackpb.Stack {
	var out []*stackpb.Stack
	walk(err, func(node error) {
		if e, ok := node.(*StackError); ok {
			out = append(out, e.Stack())
		}
	})
	return out
}

// PrintStacks writes the stacks of err: a head with the program, then two lines per call.
func PrintStacks(w io.Writer, err error) error {
	var out strings.Builder
	for _, s := range Stacks(err) {
		fmt.Fprintf(&out, "%d %s %s\n", s.GetPid(), s.GetVersion(), strings.Join(s.GetCmdline(), " "))
		for _, f := range s.GetFrames() {
			fmt.Fprintf(&out, "%s\n\t%s:%d\n", f.GetName(), f.GetFile(), f.GetLine())
		}
		out.WriteByte('\n')
	}
	_, werr := io.WriteString(w, out.String())
	return werr
}
