package dockerfile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// Names of subrequests.
const (
	requestDescribe = "frontend.subrequests.describe"
	requestOutline  = "frontend.outline"
	requestTargets  = "frontend.targets"
	requestLint     = "frontend.lint"
	requestConvert  = "frontend.convertllb"
)

// Versions of the answers.
const (
	answerVersion  = "1.0.0"
	convertVersion = "0.1.0"
)

// subrequest answers a question about the Dockerfile instead of building it.
func (b *build) subrequest(ctx context.Context) (*gateway.Result, error) {
	switch b.opts.request {
	case requestDescribe:
		return describe()
	case requestOutline:
		return b.outline(ctx)
	case requestTargets:
		return b.targets()
	case requestConvert:
		return b.convert(ctx)
	}
	return nil, &status.SubrequestError{Name: b.opts.request}
}

// answer makes the result of a subrequest; an empty text is left out.
func answer(v any, text, version string) (*gateway.Result, error) {
	dt, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	res := &gateway.Result{}
	res.SetMeta("result.json", dt)
	if version != convertVersion {
		res.SetMeta("result.txt", []byte(text))
	}
	res.SetMeta("version", []byte(version))
	return res, nil
}

type requestInfo struct {
	Name        string      `json:"name"`
	Version     string      `json:"version"`
	Type        string      `json:"type"`
	Description string      `json:"description"`
	Opts        []namedInfo `json:"opts"`
	Inputs      []namedInfo `json:"inputs"`
	Metadata    []namedInfo `json:"metadata"`
	Refs        []namedInfo `json:"refs"`
}

type namedInfo struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

func describe() (*gateway.Result, error) {
	meta := []namedInfo{{Name: "result.json"}, {Name: "result.txt"}}
	list := []requestInfo{
		{
			Name: requestOutline, Version: answerVersion, Type: "rpc", Metadata: meta,
			Description: "List all parameters current build target supports",
			Opts:        []namedInfo{{"target", "Target build stage"}},
		},
		{
			Name: requestTargets, Version: answerVersion, Type: "rpc", Metadata: meta,
			Description: "List all targets current build supports",
			Opts:        []namedInfo{},
		},
		{
			Name: requestDescribe, Version: answerVersion, Type: "rpc", Metadata: meta,
			Description: "List available subrequest types",
		},
	}
	text := table(1, func(row func(...string)) {
		row("NAME", "VERSION", "DESCRIPTION")
		for _, r := range list {
			row(strings.TrimPrefix(r.Name, "frontend."), r.Version, r.Description)
		}
	})
	return answer(list, text, answerVersion)
}

// table lays out rows in columns with padding between them.
func table(padding int, fill func(row func(cells ...string))) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, padding, ' ', 0)
	fill(func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) })
	w.Flush()
	return b.String()
}

type targetInfo struct {
	Name        string       `json:"name,omitempty"`
	Default     bool         `json:"default,omitempty"`
	Description string       `json:"description,omitempty"`
	Base        string       `json:"base,omitempty"`
	Platform    string       `json:"platform,omitempty"`
	Location    *pb.Location `json:"location,omitempty"`
}

func (b *build) targets() (*gateway.Result, error) {
	var list struct {
		Targets []targetInfo `json:"targets"`
		Sources [][]byte     `json:"sources"`
	}
	list.Sources = [][]byte{b.file.data}
	for i, s := range b.dockerfile.Stages {
		list.Targets = append(list.Targets, targetInfo{
			Name:        s.Name,
			Default:     i == len(b.dockerfile.Stages)-1,
			Description: s.Doc(),
			Base:        s.Base,
			Platform:    s.Platform,
			Location:    &pb.Location{Ranges: lower.Ranges(s.Location())},
		})
	}
	text := table(1, func(row func(...string)) {
		row("TARGET", "DESCRIPTION")
		for _, t := range list.Targets {
			name := t.Name
			switch {
			case name == "" && t.Default:
				name = "(default)"
			case t.Default:
				name += " (default)"
			}
			row(name, t.Description)
		}
	})
	return answer(list, text, answerVersion)
}

// convert returns the definition as JSON.
func (b *build) convert(ctx context.Context) (*gateway.Result, error) {
	res, _, err := b.lower(ctx, b.opts.platforms[0], nil)
	if err != nil {
		return nil, err
	}
	def, err := res.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	out := struct {
		Def      map[digest.Digest]json.RawMessage `json:"def"`
		Metadata map[string]*pb.OpMetadata         `json:"metadata"`
		Source   *pb.Source                        `json:"source"`
	}{map[digest.Digest]json.RawMessage{}, def.Metadata, def.Source}
	for _, dt := range def.Def {
		var op pb.Op
		if err := proto.Unmarshal(dt, &op); err != nil {
			return nil, err
		}
		text, err := protojson.Marshal(&op)
		if err != nil {
			return nil, err
		}
		out.Def[digest.FromBytes(dt)] = text
	}
	return answer(out, "", convertVersion)
}

type lintWarning struct {
	RuleName    string       `json:"ruleName"`
	Description string       `json:"description,omitempty"`
	URL         string       `json:"url,omitempty"`
	Detail      string       `json:"detail,omitempty"`
	Location    *pb.Location `json:"location,omitempty"`
}

type lintError struct {
	Message  string       `json:"message"`
	Location *pb.Location `json:"location"`
}

type lintResult struct {
	Warnings   []lintWarning    `json:"warnings"`
	Sources    []*pb.SourceInfo `json:"sources"`
	BuildError *lintError       `json:"buildError,omitempty"`
}

// lint checks all stages, or those that the target needs if the client names one. A Dockerfile
// that cannot be built is a finding, not an error.
func (b *build) lint(ctx context.Context) (*gateway.Result, error) {
	warnings, err := b.lintFile(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	result := lintResult{Sources: []*pb.SourceInfo{b.file.info}}
	var text bytes.Buffer
	if err != nil {
		result.BuildError = &lintError{Message: err.Error(), Location: &pb.Location{}}
		if sources := status.Sources(b.file.withSources(err)); len(sources) > 0 {
			result.BuildError.Location.Ranges = sources[0].Ranges
		}
	} else {
		for _, w := range warnings {
			at := &pb.Location{Ranges: lower.Ranges(w.Location)}
			result.Warnings = append(result.Warnings, lintWarning{w.Rule.Name, w.Rule.Description, w.Rule.URL, w.Message, at})
			title := "WARNING: " + w.Rule.Name
			if w.Rule.URL != "" {
				title += " - " + w.Rule.URL
			}
			fmt.Fprintf(&text, "\n%s\n%s\n", title, w.Message)
			place := status.WithSource(fmt.Errorf("%s", w.Message), b.file.info, at.Ranges...)
			if err := status.PrintSources(&text, place); err != nil {
				return nil, err
			}
		}
	}
	code := 0
	if len(result.Warnings) > 0 || result.BuildError != nil {
		code = 1
	}
	res, err := answer(result, text.String(), answerVersion)
	if err != nil {
		return nil, err
	}
	res.SetMeta("result.statuscode", strconv.AppendInt(nil, int64(code), 10))
	return res, nil
}
