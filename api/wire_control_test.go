package api_test

import (
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	capspb "github.com/openbuildkit/buildkit/api/caps"
	controlpb "github.com/openbuildkit/buildkit/api/control"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
)

// controlCases are the messages of the control service, workers, source policies and capabilities.
var controlCases = []wireCase{
	{
		name: "moby.buildkit.v1.PruneRequest",
		message: &controlpb.PruneRequest{
			Filter:        []string{"filter", "filter2"},
			All:           true,
			KeepDuration:  103,
			ReservedSpace: 104,
			MaxUsedSpace:  105,
			MinFreeSpace:  106,
		},
		wire: join(
			str(1, "filter"),
			str(1, "filter2"),
			num(2, 1),
			num(3, 103),
			num(4, 104),
			num(5, 105),
			num(6, 106),
		),
	},
	{
		name: "moby.buildkit.v1.DiskUsageRequest",
		message: &controlpb.DiskUsageRequest{
			Filter:   []string{"filter", "filter2"},
			AgeLimit: 102,
		},
		wire: join(
			str(1, "filter"),
			str(1, "filter2"),
			num(2, 102),
		),
	},
	{
		name: "moby.buildkit.v1.DiskUsageResponse",
		message: &controlpb.DiskUsageResponse{
			Record: []*controlpb.UsageRecord{{ID: "id"}, {}},
		},
		wire: join(
			msg(1, str(1, "id")),
			msg(1),
		),
	},
	{
		name: "moby.buildkit.v1.UsageRecord",
		message: &controlpb.UsageRecord{
			ID:          "id",
			Mutable:     true,
			InUse:       true,
			Size:        104,
			Parent:      "parent", //nolint:staticcheck // deprecated, and still on the wire
			CreatedAt:   &timestamppb.Timestamp{Seconds: 7},
			LastUsedAt:  &timestamppb.Timestamp{Seconds: 7},
			UsageCount:  108,
			Description: "description",
			RecordType:  "recordtype",
			Shared:      true,
			Parents:     []string{"parents", "parents2"},
		},
		wire: join(
			str(1, "id"),
			num(2, 1),
			num(3, 1),
			num(4, 104),
			str(5, "parent"),
			msg(6, num(1, 7)),
			msg(7, num(1, 7)),
			num(8, 108),
			str(9, "description"),
			str(10, "recordtype"),
			num(11, 1),
			str(12, "parents"),
			str(12, "parents2"),
		),
	},
	{
		name: "moby.buildkit.v1.SolveRequest",
		message: &controlpb.SolveRequest{
			Ref:                     "ref",
			Definition:              &pb.Definition{Def: [][]byte{[]byte("x")}},
			ExporterDeprecated:      "exporterdeprecated",
			ExporterAttrsDeprecated: map[string]string{"k": "exporterattrsdeprecated"},
			Session:                 "session",
			Frontend:                "frontend",
			FrontendAttrs:           map[string]string{"k": "frontendattrs"},
			Cache:                   &controlpb.CacheOptions{ExportRefDeprecated: "exportrefdeprecated"},
			Entitlements:            []string{"entitlements", "entitlements2"},
			FrontendInputs:          map[string]*pb.Definition{"k": {Def: [][]byte{[]byte("x")}}},
			Internal:                true,
			SourcePolicy:            &sourcepolicypb.Policy{Version: 101},
			Exporters:               []*controlpb.Exporter{{Type: "type"}, {}},
			EnableSessionExporter:   true,
			SourcePolicySession:     "sourcepolicysession",
			CompatibilityVersion:    116,
			ProxyNetwork:            true,
		},
		wire: join(
			str(1, "ref"),
			msg(2, str(1, "x")),
			str(3, "exporterdeprecated"),
			msg(4, str(1, "k"), str(2, "exporterattrsdeprecated")),
			str(5, "session"),
			str(6, "frontend"),
			msg(7, str(1, "k"), str(2, "frontendattrs")),
			msg(8, str(1, "exportrefdeprecated")),
			str(9, "entitlements"),
			str(9, "entitlements2"),
			msg(10, str(1, "k"), msg(2, str(1, "x"))),
			num(11, 1),
			msg(12, num(1, 101)),
			msg(13, str(1, "type")),
			msg(13),
			num(14, 1),
			str(15, "sourcepolicysession"),
			num(16, 116),
			num(17, 1),
		),
	},
	{
		name: "moby.buildkit.v1.CacheOptions",
		message: &controlpb.CacheOptions{
			ExportRefDeprecated:   "exportrefdeprecated",
			ImportRefsDeprecated:  []string{"importrefsdeprecated", "importrefsdeprecated2"},
			ExportAttrsDeprecated: map[string]string{"k": "exportattrsdeprecated"},
			Exports:               []*controlpb.CacheOptionsEntry{{Type: "type"}, {}},
			Imports:               []*controlpb.CacheOptionsEntry{{Type: "type"}, {}},
		},
		wire: join(
			str(1, "exportrefdeprecated"),
			str(2, "importrefsdeprecated"),
			str(2, "importrefsdeprecated2"),
			msg(3, str(1, "k"), str(2, "exportattrsdeprecated")),
			msg(4, str(1, "type")),
			msg(4),
			msg(5, str(1, "type")),
			msg(5),
		),
	},
	{
		name: "moby.buildkit.v1.CacheOptionsEntry",
		message: &controlpb.CacheOptionsEntry{
			Type:  "type",
			Attrs: map[string]string{"k": "attrs"},
		},
		wire: join(
			str(1, "type"),
			msg(2, str(1, "k"), str(2, "attrs")),
		),
	},
	{
		name: "moby.buildkit.v1.SolveResponse",
		message: &controlpb.SolveResponse{
			ExporterResponse: map[string]string{"k": "exporterresponse"},
		},
		wire: join(
			msg(1, str(1, "k"), str(2, "exporterresponse")),
		),
	},
	{
		name: "moby.buildkit.v1.StatusRequest",
		message: &controlpb.StatusRequest{
			Ref: "ref",
		},
		wire: join(
			str(1, "ref"),
		),
	},
	{
		name: "moby.buildkit.v1.StatusResponse",
		message: &controlpb.StatusResponse{
			Vertexes: []*controlpb.Vertex{{Digest: "digest"}, {}},
			Statuses: []*controlpb.VertexStatus{{ID: "id"}, {}},
			Logs:     []*controlpb.VertexLog{{Vertex: "vertex"}, {}},
			Warnings: []*controlpb.VertexWarning{{Vertex: "vertex"}, {}},
		},
		wire: join(
			msg(1, str(1, "digest")),
			msg(1),
			msg(2, str(1, "id")),
			msg(2),
			msg(3, str(1, "vertex")),
			msg(3),
			msg(4, str(1, "vertex")),
			msg(4),
		),
	},
	{
		name: "moby.buildkit.v1.Vertex",
		message: &controlpb.Vertex{
			Digest:        "digest",
			Inputs:        []string{"inputs", "inputs2"},
			Name:          "name",
			Cached:        true,
			Started:       &timestamppb.Timestamp{Seconds: 7},
			Completed:     &timestamppb.Timestamp{Seconds: 7},
			Error:         "error",
			ProgressGroup: &pb.ProgressGroup{Id: "id"},
		},
		wire: join(
			str(1, "digest"),
			str(2, "inputs"),
			str(2, "inputs2"),
			str(3, "name"),
			num(4, 1),
			msg(5, num(1, 7)),
			msg(6, num(1, 7)),
			str(7, "error"),
			msg(8, str(1, "id")),
		),
	},
	{
		name: "moby.buildkit.v1.VertexStatus",
		message: &controlpb.VertexStatus{
			ID:        "id",
			Vertex:    "vertex",
			Name:      "name",
			Current:   104,
			Total:     105,
			Timestamp: &timestamppb.Timestamp{Seconds: 7},
			Started:   &timestamppb.Timestamp{Seconds: 7},
			Completed: &timestamppb.Timestamp{Seconds: 7},
		},
		wire: join(
			str(1, "id"),
			str(2, "vertex"),
			str(3, "name"),
			num(4, 104),
			num(5, 105),
			msg(6, num(1, 7)),
			msg(7, num(1, 7)),
			msg(8, num(1, 7)),
		),
	},
	{
		name: "moby.buildkit.v1.VertexLog",
		message: &controlpb.VertexLog{
			Vertex:    "vertex",
			Timestamp: &timestamppb.Timestamp{Seconds: 7},
			Stream:    103,
			Msg:       []byte("msg"),
		},
		wire: join(
			str(1, "vertex"),
			msg(2, num(1, 7)),
			num(3, 103),
			str(4, "msg"),
		),
	},
	{
		name: "moby.buildkit.v1.VertexWarning",
		message: &controlpb.VertexWarning{
			Vertex: "vertex",
			Level:  102,
			Short:  []byte("short"),
			Detail: [][]byte{[]byte("detail"), []byte("detail2")},
			Url:    "url",
			Info:   &pb.SourceInfo{Filename: "filename"},
			Ranges: []*pb.Range{{}, {}},
		},
		wire: join(
			str(1, "vertex"),
			num(2, 102),
			str(3, "short"),
			str(4, "detail"),
			str(4, "detail2"),
			str(5, "url"),
			msg(6, str(1, "filename")),
			msg(7),
			msg(7),
		),
	},
	{
		name: "moby.buildkit.v1.BytesMessage",
		message: &controlpb.BytesMessage{
			Data: []byte("data"),
		},
		wire: join(
			str(1, "data"),
		),
	},
	{
		name: "moby.buildkit.v1.ListWorkersRequest",
		message: &controlpb.ListWorkersRequest{
			Filter: []string{"filter", "filter2"},
		},
		wire: join(
			str(1, "filter"),
			str(1, "filter2"),
		),
	},
	{
		name: "moby.buildkit.v1.ListWorkersResponse",
		message: &controlpb.ListWorkersResponse{
			Record: []*workerspb.WorkerRecord{{ID: "id"}, {}},
		},
		wire: join(
			msg(1, str(1, "id")),
			msg(1),
		),
	},
	{
		name:    "moby.buildkit.v1.InfoRequest",
		message: &controlpb.InfoRequest{},
	},
	{
		name: "moby.buildkit.v1.InfoResponse",
		message: &controlpb.InfoResponse{
			BuildkitVersion: &workerspb.BuildkitVersion{Package: "package"},
		},
		wire: join(
			msg(1, str(1, "package")),
		),
	},
	{
		name: "moby.buildkit.v1.BuildHistoryRequest",
		message: &controlpb.BuildHistoryRequest{
			ActiveOnly: true,
			Ref:        "ref",
			EarlyExit:  true,
			Filter:     []string{"filter", "filter2"},
			Limit:      105,
		},
		wire: join(
			num(1, 1),
			str(2, "ref"),
			num(3, 1),
			str(4, "filter"),
			str(4, "filter2"),
			num(5, 105),
		),
	},
	{
		name: "moby.buildkit.v1.BuildHistoryEvent",
		message: &controlpb.BuildHistoryEvent{
			Type:   controlpb.BuildHistoryEventType_DELETED,
			Record: &controlpb.BuildHistoryRecord{Ref: "ref"},
		},
		wire: join(
			num(1, 2),
			msg(2, str(1, "ref")),
		),
	},
	{
		name: "moby.buildkit.v1.BuildHistoryRecord",
		message: &controlpb.BuildHistoryRecord{
			Ref:               "ref",
			Frontend:          "frontend",
			FrontendAttrs:     map[string]string{"k": "frontendattrs"},
			Exporters:         []*controlpb.Exporter{{Type: "type"}, {}},
			Error:             &statuspb.Status{Code: 5},
			CreatedAt:         &timestamppb.Timestamp{Seconds: 7},
			CompletedAt:       &timestamppb.Timestamp{Seconds: 7},
			Logs:              &controlpb.Descriptor{MediaType: "media_type"},
			ExporterResponse:  map[string]string{"k": "exporterresponse"},
			Result:            &controlpb.BuildResultInfo{},
			Results:           map[string]*controlpb.BuildResultInfo{"k": {}},
			Generation:        112,
			Trace:             &controlpb.Descriptor{MediaType: "media_type"},
			Pinned:            true,
			NumCachedSteps:    115,
			NumTotalSteps:     116,
			NumCompletedSteps: 117,
			ExternalError:     &controlpb.Descriptor{MediaType: "media_type"},
			NumWarnings:       119,
		},
		wire: join(
			str(1, "ref"),
			str(2, "frontend"),
			msg(3, str(1, "k"), str(2, "frontendattrs")),
			msg(4, str(1, "type")),
			msg(4),
			msg(5, num(1, 5)),
			msg(6, num(1, 7)),
			msg(7, num(1, 7)),
			msg(8, str(1, "media_type")),
			msg(9, str(1, "k"), str(2, "exporterresponse")),
			msg(10),
			msg(11, str(1, "k"), msg(2)),
			num(12, 112),
			msg(13, str(1, "media_type")),
			num(14, 1),
			num(15, 115),
			num(16, 116),
			num(17, 117),
			msg(18, str(1, "media_type")),
			num(19, 119),
		),
	},
	{
		name: "moby.buildkit.v1.UpdateBuildHistoryRequest",
		message: &controlpb.UpdateBuildHistoryRequest{
			Ref:      "ref",
			Pinned:   true,
			Delete:   true,
			Finalize: true,
		},
		wire: join(
			str(1, "ref"),
			num(2, 1),
			num(3, 1),
			num(4, 1),
		),
	},
	{
		name:    "moby.buildkit.v1.UpdateBuildHistoryResponse",
		message: &controlpb.UpdateBuildHistoryResponse{},
	},
	{
		name: "moby.buildkit.v1.Descriptor",
		message: &controlpb.Descriptor{
			MediaType:   "media_type",
			Digest:      "digest",
			Size:        103,
			Annotations: map[string]string{"k": "annotations"},
		},
		wire: join(
			str(1, "media_type"),
			str(2, "digest"),
			num(3, 103),
			msg(5, str(1, "k"), str(2, "annotations")),
		),
	},
	{
		name: "moby.buildkit.v1.BuildResultInfo",
		message: &controlpb.BuildResultInfo{
			ResultDeprecated: &controlpb.Descriptor{MediaType: "media_type"},
			Attestations:     []*controlpb.Descriptor{{MediaType: "media_type"}, {}},
			Results:          map[int64]*controlpb.Descriptor{3: {MediaType: "media_type"}},
		},
		wire: join(
			msg(1, str(1, "media_type")),
			msg(2, str(1, "media_type")),
			msg(2),
			msg(3, num(1, 3), msg(2, str(1, "media_type"))),
		),
	},
	{
		name: "moby.buildkit.v1.Exporter",
		message: &controlpb.Exporter{
			Type:  "type",
			Attrs: map[string]string{"k": "attrs"},
		},
		wire: join(
			str(1, "type"),
			msg(2, str(1, "k"), str(2, "attrs")),
		),
	},
	{
		name: "moby.buildkit.v1.types.WorkerRecord",
		message: &workerspb.WorkerRecord{
			ID:              "id",
			Labels:          map[string]string{"k": "labels"},
			Platforms:       []*pb.Platform{{Architecture: "architecture"}, {}},
			GCPolicy:        []*workerspb.GCPolicy{{All: true}, {}},
			BuildkitVersion: &workerspb.BuildkitVersion{Package: "package"},
			CDIDevices:      []*workerspb.CDIDevice{{Name: "name"}, {}},
		},
		wire: join(
			str(1, "id"),
			msg(2, str(1, "k"), str(2, "labels")),
			msg(3, str(1, "architecture")),
			msg(3),
			msg(4, num(1, 1)),
			msg(4),
			msg(5, str(1, "package")),
			msg(6, str(1, "name")),
			msg(6),
		),
	},
	{
		name: "moby.buildkit.v1.types.GCPolicy",
		message: &workerspb.GCPolicy{
			All:           true,
			KeepDuration:  102,
			ReservedSpace: 103,
			Filters:       []string{"filters", "filters2"},
			MaxUsedSpace:  105,
			MinFreeSpace:  106,
		},
		wire: join(
			num(1, 1),
			num(2, 102),
			num(3, 103),
			str(4, "filters"),
			str(4, "filters2"),
			num(5, 105),
			num(6, 106),
		),
	},
	{
		name: "moby.buildkit.v1.types.BuildkitVersion",
		message: &workerspb.BuildkitVersion{
			Package:           "package",
			Version:           "version",
			Revision:          "revision",
			DockerfileVersion: "dockerfileversion",
		},
		wire: join(
			str(1, "package"),
			str(2, "version"),
			str(3, "revision"),
			str(4, "dockerfileversion"),
		),
	},
	{
		name: "moby.buildkit.v1.types.CDIDevice",
		message: &workerspb.CDIDevice{
			Name:        "name",
			AutoAllow:   true,
			Annotations: map[string]string{"k": "annotations"},
			OnDemand:    true,
		},
		wire: join(
			str(1, "name"),
			num(2, 1),
			msg(3, str(1, "k"), str(2, "annotations")),
			num(4, 1),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.Rule",
		message: &sourcepolicypb.Rule{
			Action:   sourcepolicypb.PolicyAction_CONVERT,
			Selector: &sourcepolicypb.Selector{Identifier: "identifier"},
			Updates:  &sourcepolicypb.Update{Identifier: "identifier"},
		},
		wire: join(
			num(1, 2),
			msg(2, str(1, "identifier")),
			msg(3, str(1, "identifier")),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.Update",
		message: &sourcepolicypb.Update{
			Identifier: "identifier",
			Attrs:      map[string]string{"k": "attrs"},
		},
		wire: join(
			str(1, "identifier"),
			msg(2, str(1, "k"), str(2, "attrs")),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.Selector",
		message: &sourcepolicypb.Selector{
			Identifier:  "identifier",
			MatchType:   sourcepolicypb.MatchType_REGEX,
			Constraints: []*sourcepolicypb.AttrConstraint{{Key: "key"}, {}},
		},
		wire: join(
			str(1, "identifier"),
			num(2, 2),
			msg(3, str(1, "key")),
			msg(3),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.AttrConstraint",
		message: &sourcepolicypb.AttrConstraint{
			Key:       "key",
			Value:     "value",
			Condition: sourcepolicypb.AttrMatch_MATCHES,
		},
		wire: join(
			str(1, "key"),
			str(2, "value"),
			num(3, 2),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.Policy",
		message: &sourcepolicypb.Policy{
			Version: 101,
			Rules:   []*sourcepolicypb.Rule{{Action: sourcepolicypb.PolicyAction_CONVERT}, {}},
		},
		wire: join(
			num(1, 101),
			msg(2, num(1, 2)),
			msg(2),
		),
	},
	{
		name: "moby.buildkit.v1.apicaps.APICap",
		message: &capspb.APICap{
			ID:                  "id",
			Enabled:             true,
			Deprecated:          true,
			DisabledReason:      "disabledreason",
			DisabledReasonMsg:   "disabledreasonmsg",
			DisabledAlternative: "disabledalternative",
		},
		wire: join(
			str(1, "id"),
			num(2, 1),
			num(3, 1),
			str(4, "disabledreason"),
			str(5, "disabledreasonmsg"),
			str(6, "disabledalternative"),
		),
	},
}
