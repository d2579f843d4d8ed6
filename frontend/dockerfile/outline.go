package dockerfile

import (
	"context"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

type outlineArg struct {
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Value       string       `json:"value,omitempty"`
	Location    *pb.Location `json:"location,omitempty"`
}

type outlineSecret struct {
	Name     string       `json:"name"`
	Required bool         `json:"required,omitempty"`
	Location *pb.Location `json:"location,omitempty"`
}

type outlineResult struct {
	Name        string          `json:"name,omitempty"`
	Description string          `json:"description,omitempty"`
	Args        []outlineArg    `json:"args,omitempty"`
	Secrets     []outlineSecret `json:"secrets,omitempty"`
	SSH         []outlineSecret `json:"ssh,omitempty"`
	Sources     [][]byte        `json:"sources,omitempty"`
}

// outline tells what the target can be given.
func (b *build) outline(ctx context.Context) (*gateway.Result, error) {
	_, l, err := b.lower(ctx, b.opts.platforms[0], nil)
	if err != nil {
		return nil, err
	}
	o := l.Outline()
	out := outlineResult{Name: o.Name, Description: o.Description, Sources: [][]byte{b.file.data}}
	for _, a := range o.Args {
		out.Args = append(out.Args, outlineArg{a.Name, a.Description, a.Value, location(a)})
	}
	out.Secrets = outlineSecrets(o.Secrets)
	out.SSH = outlineSecrets(o.SSH)
	return answer(out, out.text(), answerVersion)
}

func location(p lower.Parameter) *pb.Location {
	return &pb.Location{Ranges: lower.Ranges(p.Location)}
}

func outlineSecrets(params []lower.Parameter) []outlineSecret {
	var out []outlineSecret
	for _, p := range params {
		out = append(out, outlineSecret{p.Name, p.Required, location(p)})
	}
	return out
}

func (o *outlineResult) text() string {
	text := ""
	if o.Name != "" || o.Description != "" {
		text += table(1, func(row func(...string)) {
			row("TARGET:", o.Name)
			if o.Description != "" {
				row("DESCRIPTION:", o.Description)
			}
		}) + "\n"
	}
	if len(o.Args) > 0 {
		text += table(3, func(row func(...string)) {
			row("BUILD ARG", "VALUE", "DESCRIPTION")
			for _, a := range o.Args {
				row(a.Name, a.Value, a.Description)
			}
		}) + "\n"
	}
	return text + secretsText("SECRET", o.Secrets) + secretsText("SSH", o.SSH)
}

func secretsText(title string, list []outlineSecret) string {
	if len(list) == 0 {
		return ""
	}
	return table(3, func(row func(...string)) {
		row(title, "REQUIRED")
		for _, s := range list {
			required := ""
			if s.Required {
				required = "true"
			}
			row(s.Name, required)
		}
	}) + "\n"
}
