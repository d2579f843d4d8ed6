package lower

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/shell"
)

// descriptionCommand is the key of the description of an op that holds its instruction.
const descriptionCommand = "com.docker.dockerfile.v1.command"

func command(text string) llb.ConstraintsOpt {
	return llb.Description(map[string]string{descriptionCommand: text})
}

// internalName names a vertex that no instruction stands for.
func internalName(name string) llb.ConstraintsOpt { return llb.CustomName("[internal] " + name) }

// step returns the name of the next vertex of a stage: "[platform stage 2/7] " and text.
func (b *Build) step(s *stage, text string, arrow bool) string {
	if s.steps == 0 {
		return text
	}
	s.stepsDone++
	var out strings.Builder
	out.WriteByte('[')
	if b.opt.PlatformNames {
		out.WriteString(platforms.Format(s.platform))
		if arrow {
			out.WriteString(arrowTo(s.platform, b.opt.TargetPlatform))
		}
		out.WriteByte(' ')
	}
	if b.named && s.name != "" {
		out.WriteString(s.name + " ")
	}
	fmt.Fprintf(&out, "%*d/%d] %s", len(strconv.Itoa(s.steps)), s.stepsDone, s.steps, text)
	return out.String()
}

// arrowTo shows that a stage of one platform works for another.
func arrowTo(p, target ocispec.Platform) string {
	p, target = platforms.Normalize(p), platforms.Normalize(target)
	switch {
	case platforms.Format(p) == platforms.Format(target):
		return ""
	case p.OS != target.OS:
		return "->" + platforms.Format(target)
	case target.Variant != "":
		return "->" + target.Architecture + "/" + target.Variant
	default:
		return "->" + target.Architecture
	}
}

// display returns an instruction as it is shown: the keyword in upper case, variables expanded.
// What cannot be expanded is shown as written, credentials in urls are not shown.
func display(c *cmd, lex shell.Lexer, env shell.Env) string {
	node := c.inst.Node()
	text := node.Text
	if expanded, err := lex.Word(text, env); err == nil {
		text = expanded
	}
	text = strings.ToUpper(node.Keyword) + strings.TrimPrefix(text, node.Keyword)
	if c.trigger {
		text = "ONBUILD " + text
	}
	return giturl.Redact(text)
}

// heredocSuffix shows the start of a script.
func heredocSuffix(h parser.Heredoc) string {
	lines := strings.Split(strings.TrimSpace(h.Body()), "\n")
	first := strings.TrimSpace(lines[0])
	if len(lines) > 1 {
		first += "..."
	}
	return " (" + first + ")"
}
