package instruction

import (
	"errors"
	"fmt"
	"strings"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// Transfer is what COPY and ADD have in common.
type Transfer struct {
	base
	// Sources are paths, and for ADD urls too.
	Sources []string
	// Contents are files given as here-documents.
	Contents []Content
	Dest     string

	Chown, Chmod string
	Link         bool
	// Exclude are patterns of paths below the sources that are left out.
	Exclude []string
}

// Content is a file that is written in the Dockerfile.
type Content struct {
	Name, Data string
	// Expand tells that variables in Data are expanded.
	Expand bool
}

// Copy copies files from the build context, a stage or an image.
type Copy struct {
	Transfer
	// From names a stage, an image or a named context; empty is the build context.
	From string
	// Parents keeps the parent directories of the sources.
	Parents bool
}

// Add copies files from the build context or from urls, and unpacks archives.
type Add struct {
	Transfer
	Checksum string
	// KeepGitDir and Unpack are nil if not given.
	KeepGitDir, Unpack *bool
}

var errFromExpansion = errors.New("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")

func parseCopy(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	c := &Copy{Transfer: Transfer{base: base{node}}}
	f.str(&c.Chown, "chown")
	f.str(&c.From, "from")
	f.str(&c.Chmod, "chmod")
	f.boolean(&c.Link, "link")
	f.boolean(&c.Parents, "parents")
	f.strs(&c.Exclude, "exclude")
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	return c, c.parseArgs(node)
}

func parseAdd(node *parser.Node, f *flags, _ byte) (Instruction, error) {
	a := &Add{Transfer: Transfer{base: base{node}}}
	f.str(&a.Chown, "chown")
	f.str(&a.Chmod, "chmod")
	f.boolean(&a.Link, "link")
	f.optional(&a.KeepGitDir, "keep-git-dir")
	f.str(&a.Checksum, "checksum")
	f.optional(&a.Unpack, "unpack")
	f.strs(&a.Exclude, "exclude")
	if err := f.parse(node.Flags); err != nil {
		return nil, err
	}
	return a, a.parseArgs(node)
}

func (t *Transfer) parseArgs(node *parser.Node) error {
	name := strings.ToUpper(node.Name)
	if len(node.Args) < 2 {
		return fmt.Errorf("%s requires at least two arguments, but only one was provided. Destination could not be determined", name)
	}
	docs := node.Heredocs
	for i, arg := range node.Args {
		last := i == len(node.Args)-1
		if len(docs) > 0 && arg == docs[0].Word {
			if last {
				return fmt.Errorf("%s cannot accept a heredoc as a destination", name)
			}
			t.Contents = append(t.Contents, Content{Name: docs[0].Name, Data: docs[0].Body(), Expand: docs[0].Expand})
			docs = docs[1:]
			continue
		}
		if last {
			t.Dest = arg
		} else {
			t.Sources = append(t.Sources, arg)
		}
	}
	return nil
}

// CheckFrom reports a COPY --from that is a variable.
func (c *Copy) CheckFrom() error {
	if strings.Contains(c.From, "$") {
		return errFromExpansion
	}
	return nil
}
