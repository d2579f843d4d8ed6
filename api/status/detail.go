package status

import (
	"encoding/json"
	"reflect"

	"github.com/containerd/typeurl/v2"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	stackpb "github.com/openbuildkit/buildkit/api/stack"
)

// Type URLs of the details. The values are JSON: that of the Go struct, except for Solve, which
// is canonical protobuf JSON.
const (
	urlStack                = "github.com/moby/buildkit/stack.Stack+json"
	urlVertex               = "github.com/moby/buildkit/errdefs.Vertex+json"
	urlSource               = "github.com/moby/buildkit/errdefs.Source+json"
	urlFrontend             = "github.com/moby/buildkit/errdefs.Frontend+json"
	urlFrontendCap          = "github.com/moby/buildkit/errdefs.FrontendCap+json"
	urlSubrequest           = "github.com/moby/buildkit/errdefs.Subrequest+json"
	urlSolve                = "github.com/moby/buildkit/errdefs.Solve+json"
	urlCompatibilityFeature = "github.com/moby/buildkit/errdefs.CompatibilityFeature+json"
	urlMaterials            = "github.com/moby/buildkit/errdefs.ProvenanceMaterialsIncomplete+json"
	urlExit                 = "github.com/moby/buildkit/gatewayapi.ExitMessage+json"
	urlDecision             = "github.com/moby/buildkit/policysession.DecisionResponse+json"
)

// Limits of the source files in the details of one error. They travel in the headers at the end of a
// call, for which there are 16 MiB, in base64 within base64.
const (
	maxSources    = 16
	maxSourceData = 2 << 20
)

// details returns the details of every node of err, innermost first. Of large source files there is
// only what is shown, and of very many the innermost ones.
func details(err error) []*anypb.Any {
	var out []*anypb.Any
	sources, room := 0, maxSourceData
	walk(err, func(node error) {
		switch e := node.(type) {
		case *withStatus:
			return // its details are those of what it wraps
		case *SourceError:
			if sources++; sources > maxSources {
				return
			}
			info := excerpt(e.Info, e.Ranges, room)
			room -= len(info.GetData())
			node = &SourceError{info, e.Ranges, e.Err}
		case interface{ GRPCStatus() *grpcstatus.Status }:
			if st := e.GRPCStatus(); st != nil {
				out = append(out, st.Proto().GetDetails()...)
			}
			return
		}
		if d := encodeDetail(node); d != nil {
			out = append(out, d)
		}
	})
	return out
}

// encodeDetail returns the detail of one node, nil if it has none.
func encodeDetail(err error) *anypb.Any {
	switch e := err.(type) {
	case *VertexError:
		return jsonDetail(urlVertex, &errdefspb.Vertex{Digest: e.Digest})
	case *SourceError:
		return jsonDetail(urlSource, &errdefspb.Source{Info: e.Info, Ranges: e.Ranges})
	case *FrontendError:
		return jsonDetail(urlFrontend, &errdefspb.Frontend{Name: e.Name, Source: e.Source})
	case *FrontendCapError:
		return jsonDetail(urlFrontendCap, &errdefspb.FrontendCap{Name: e.Name})
	case *SubrequestError:
		return jsonDetail(urlSubrequest, &errdefspb.Subrequest{Name: e.Name})
	case *CompatibilityFeatureError:
		return jsonDetail(urlCompatibilityFeature, &errdefspb.CompatibilityFeature{Version: e.Version, Feature: e.Feature})
	case *MaterialsIncompleteError:
		return jsonDetail(urlMaterials, &errdefspb.ProvenanceMaterialsIncomplete{Incomplete: e.Incomplete})
	case *SolveError:
		data, err := protojson.Marshal(e.Solve)
		if err != nil {
			return nil
		}
		return &anypb.Any{TypeUrl: urlSolve, Value: data}
	case *ExitError:
		return jsonDetail(urlExit, &gatewaypb.ExitMessage{Code: e.Code})
	case *DenyError:
		return jsonDetail(urlDecision, &policypb.DecisionResponse{
			Action: sourcepolicypb.PolicyAction_DENY, DenyMessages: e.Messages,
		})
	case *StackError:
		return jsonDetail(urlStack, e.Stack())
	}
	return registeredDetail(err)
}

func jsonDetail(url string, v any) *anypb.Any {
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return &anypb.Any{TypeUrl: url, Value: data}
}

// registeredDetail encodes an error of a library that registered its type with typeurl.
func registeredDetail(err error) *anypb.Any {
	v := reflect.ValueOf(err)
	if v.Kind() == reflect.Struct {
		ptr := reflect.New(v.Type())
		ptr.Elem().Set(v)
		v = ptr
	}
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return nil
	}
	a, merr := typeurl.MarshalAny(v.Interface())
	if merr != nil {
		return nil
	}
	return &anypb.Any{TypeUrl: a.GetTypeUrl(), Value: a.GetValue()}
}

// decodeDetail wraps err with the record of d. It returns nil if d is not known or broken.
func decodeDetail(d *anypb.Any, err error) error {
	data := d.GetValue()
	switch d.GetTypeUrl() {
	case urlVertex:
		return decode(data, func(m *errdefspb.Vertex) error { return &VertexError{m.Digest, err} })
	case urlSource:
		return decode(data, func(m *errdefspb.Source) error { return &SourceError{m.Info, m.Ranges, err} })
	case urlFrontend:
		return decode(data, func(m *errdefspb.Frontend) error { return &FrontendError{m.Name, m.Source, err} })
	case urlFrontendCap:
		return decode(data, func(m *errdefspb.FrontendCap) error { return &FrontendCapError{m.Name, err} })
	case urlSubrequest:
		return decode(data, func(m *errdefspb.Subrequest) error { return &SubrequestError{m.Name, err} })
	case urlCompatibilityFeature:
		return decode(data, func(m *errdefspb.CompatibilityFeature) error {
			return &CompatibilityFeatureError{m.Version, m.Feature, err}
		})
	case urlMaterials:
		return decode(data, func(m *errdefspb.ProvenanceMaterialsIncomplete) error {
			return &MaterialsIncompleteError{m.Incomplete, err}
		})
	case urlSolve:
		m := &errdefspb.Solve{}
		if uerr := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); uerr != nil {
			return nil //nolint:nilerr // a broken detail tells nothing
		}
		return &SolveError{m, err}
	case urlExit:
		return decode(data, func(m *gatewaypb.ExitMessage) error { return &ExitError{m.Code, err} })
	case urlDecision:
		return decode(data, func(m *policypb.DecisionResponse) error { return &DenyError{m.DenyMessages, err} })
	case urlStack:
		return decode(data, func(m *stackpb.Stack) error { return &StackError{Err: err, stack: m} })
	}
	return nil
}

func decode[M any](data []byte, wrap func(*M) error) error {
	m := new(M)
	if err := json.Unmarshal(data, m); err != nil {
		return nil //nolint:nilerr // a broken detail tells nothing
	}
	return wrap(m)
}
