package history_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// What a client sends must not make a record that nobody can be sent.
func TestARecordIsOfBoundedSize(t *testing.T) {
	long := strings.Repeat("ä", 8<<20)
	many := map[string]string{}
	for i := range 300_000 {
		many[fmt.Sprint("build-arg:", i)] = "x"
	}
	exporters := make([]*controlpb.Exporter, 500_000)
	for i := range exporters {
		exporters[i] = &controlpb.Exporter{Type: "image", Attrs: map[string]string{"name": "x"}}
	}
	for name, c := range map[string]struct {
		rec      *history.Record
		err      error
		response map[string]string
	}{
		"a long option":      {rec: &history.Record{FrontendAttrs: map[string]string{"a": long, "target": "t"}}},
		"a long name":        {rec: &history.Record{FrontendAttrs: map[string]string{long: "a", "target": "t"}}},
		"many options":       {rec: &history.Record{FrontendAttrs: many}},
		"a long frontend":    {rec: &history.Record{Frontend: long, FrontendAttrs: map[string]string{"target": "t"}}},
		"many exporters":     {rec: &history.Record{Exporters: exporters, FrontendAttrs: map[string]string{"target": "t"}}},
		"a long output":      {rec: &history.Record{Exporters: []*controlpb.Exporter{{Type: long, Attrs: map[string]string{"name": long}}}}},
		"a long error":       {rec: &history.Record{}, err: errors.New(long)},
		"a long answer":      {rec: &history.Record{}, response: map[string]string{"a": long, "digest": "d"}},
		"a bit of each":      {rec: &history.Record{FrontendAttrs: map[string]string{"a": long}}, err: errors.New(long), response: many},
		"an answer of bytes": {rec: &history.Record{}, response: map[string]string{"\xff": "\xfe", "digest": "d"}},
		"an error of bytes":  {rec: &history.Record{}, err: errors.New("no file \xff\xfe")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, history.Config{Dir: dir})
			c.rec.Ref = "r"
			told := feed.New("")
			b := s.Begin(c.rec)
			check := func(s *history.Store, kind controlpb.BuildHistoryEventType) {
				events := list(t, s, nil)
				require.Len(t, events, 1)
				require.Equal(t, kind, events[0].GetType())
				require.Less(t, proto.Size(events[0]), 8<<20)
				_, err := proto.Marshal(events[0])
				require.NoError(t, err)
				rec := events[0].GetRecord()
				if c.rec.GetFrontendAttrs()["target"] != "" {
					require.Equal(t, map[string]string{"target": "t"}, rec.GetFrontendAttrs(), "what is short is kept")
				}
				if kind == controlpb.BuildHistoryEventType_COMPLETE {
					require.Equal(t, c.response["digest"], rec.GetExporterResponse()["digest"])
					require.Equal(t, c.err != nil, rec.GetError() != nil)
				}
			}
			check(s, controlpb.BuildHistoryEventType_STARTED)
			told.Close()
			b.End(history.Outcome{Feed: told, Err: c.err, Response: c.response})
			check(s, controlpb.BuildHistoryEventType_COMPLETE)
			require.NoError(t, s.Close())
			check(open(t, history.Config{Dir: dir}), controlpb.BuildHistoryEventType_COMPLETE)
		})
	}
}
