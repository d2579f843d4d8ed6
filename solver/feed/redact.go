package feed

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/redact"
)

// redacted returns a batch as it is told: without credentials in names, errors and files. Output is
// what steps say, and stays as it is.
func redacted(b event.Batch) event.Batch {
	out := event.Batch{Logs: b.Logs}
	for _, v := range b.Vertices {
		v.Name, v.Error = text(v.Name), text(v.Error)
		v.ProgressGroup = redactedGroup(v.ProgressGroup)
		out.Vertices = append(out.Vertices, v)
	}
	for _, st := range b.Statuses {
		st.ID, st.Name = text(st.ID), text(st.Name)
		out.Statuses = append(out.Statuses, st)
	}
	for _, w := range b.Warnings {
		w.Short, w.URL = redactedBytes(w.Short), text(w.URL)
		detail := w.Detail
		w.Detail = nil
		for _, d := range detail {
			w.Detail = append(w.Detail, redactedBytes(d))
		}
		w.Source = redact.SourceInfo(w.Source)
		out.Warnings = append(out.Warnings, w)
	}
	return out
}

// text returns text without credentials, and as messages can have it: names of files are bytes.
func text(s string) string { return strings.ToValidUTF8(giturl.Redact(s), "\uFFFD") }

func redactedBytes(b []byte) []byte { return []byte(giturl.Redact(string(b))) }

func redactedGroup(g *pb.ProgressGroup) *pb.ProgressGroup {
	name := giturl.Redact(g.GetName())
	if name == g.GetName() {
		return g
	}
	g = proto.CloneOf(g)
	g.Name = name
	return g
}
