package status

import (
	"encoding/json"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/api/redact"
)

// Redacted returns a status to be kept, without the credentials that may be in the ops and files of
// its details. Who has made the request gets all of them: a client may run the op that failed again.
func Redacted(st *spb.Status) *spb.Status {
	st = proto.CloneOf(st)
	st.Message = giturl.Redact(st.GetMessage())
	for i, d := range st.GetDetails() {
		st.Details[i] = redactedDetail(d)
	}
	return st
}

func redactedDetail(d *anypb.Any) *anypb.Any {
	switch d.GetTypeUrl() {
	case urlSolve:
		m := &errdefspb.Solve{}
		if protojson.Unmarshal(d.GetValue(), m) == nil {
			m.Op = redact.Op(m.GetOp())
			m.Description = redact.Map(m.GetDescription())
			if data, err := protojson.Marshal(m); err == nil {
				d = &anypb.Any{TypeUrl: d.GetTypeUrl(), Value: data}
			}
		}
	case urlSource:
		var m errdefspb.Source
		if json.Unmarshal(d.GetValue(), &m) == nil {
			d = jsonDetail(d.GetTypeUrl(), &errdefspb.Source{Info: redact.SourceInfo(m.GetInfo()), Ranges: m.GetRanges()})
		}
	}
	text := giturl.Redact(string(d.GetValue()))
	if text != string(d.GetValue()) && !json.Valid([]byte(text)) {
		text = "" // it is no text: what it is cannot be read any more
	}
	return &anypb.Any{TypeUrl: d.GetTypeUrl(), Value: []byte(text)}
}
