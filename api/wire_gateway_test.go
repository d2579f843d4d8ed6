package api_test

import (
	fstypes "github.com/tonistiigi/fsutil/types"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	capspb "github.com/openbuildkit/buildkit/api/caps"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
)

// gatewayCases are the messages of the bridge between frontends and the daemon.
var gatewayCases = []wireCase{
	{
		name: "moby.buildkit.v1.frontend.Result with refDeprecated",
		message: &gatewaypb.Result{
			Metadata:     map[string][]byte{"k": []byte("metadata")},
			Attestations: map[string]*gatewaypb.Attestations{"k": {}},
			Result:       &gatewaypb.Result_RefDeprecated{RefDeprecated: "refdeprecated"},
		},
		wire: join(
			msg(10, str(1, "k"), str(2, "metadata")),
			msg(12, str(1, "k"), msg(2)),
			str(1, "refdeprecated"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Result with refsDeprecated",
		message: &gatewaypb.Result{
			Result: &gatewaypb.Result_RefsDeprecated{RefsDeprecated: &gatewaypb.RefMapDeprecated{Refs: map[string]string{"x": "y"}}},
		},
		wire: join(
			msg(2, msg(1, str(1, "x"), str(2, "y"))),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Result with ref",
		message: &gatewaypb.Result{
			Result: &gatewaypb.Result_Ref{Ref: &gatewaypb.Ref{Id: "id"}},
		},
		wire: join(
			msg(3, str(1, "id")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Result with refs",
		message: &gatewaypb.Result{
			Result: &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{}},
		},
		wire: join(
			msg(4),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.RefMapDeprecated",
		message: &gatewaypb.RefMapDeprecated{
			Refs: map[string]string{"k": "refs"},
		},
		wire: join(
			msg(1, str(1, "k"), str(2, "refs")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Ref",
		message: &gatewaypb.Ref{
			Id:  "id",
			Def: &pb.Definition{Def: [][]byte{[]byte("x")}},
		},
		wire: join(
			str(1, "id"),
			msg(2, str(1, "x")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.RefMap",
		message: &gatewaypb.RefMap{
			Refs: map[string]*gatewaypb.Ref{"k": {Id: "id"}},
		},
		wire: join(
			msg(1, str(1, "k"), msg(2, str(1, "id"))),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Attestations",
		message: &gatewaypb.Attestations{
			Attestation: []*gatewaypb.Attestation{{Path: "path"}, {}},
		},
		wire: join(
			msg(1, str(4, "path")),
			msg(1),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Attestation",
		message: &gatewaypb.Attestation{
			Kind:                gatewaypb.AttestationKind_Bundle,
			Metadata:            map[string][]byte{"k": []byte("metadata")},
			Ref:                 &gatewaypb.Ref{Id: "id"},
			Path:                "path",
			InTotoPredicateType: "intotopredicatetype",
			InTotoSubjects:      []*gatewaypb.InTotoSubject{{Name: "name"}, {}},
		},
		wire: join(
			num(1, 1),
			msg(2, str(1, "k"), str(2, "metadata")),
			msg(3, str(1, "id")),
			str(4, "path"),
			str(5, "intotopredicatetype"),
			msg(6, str(3, "name")),
			msg(6),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.InTotoSubject",
		message: &gatewaypb.InTotoSubject{
			Kind:   gatewaypb.InTotoSubjectKind_Raw,
			Digest: []string{"digest", "digest2"},
			Name:   "name",
		},
		wire: join(
			num(1, 1),
			str(2, "digest"),
			str(2, "digest2"),
			str(3, "name"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ReturnRequest",
		message: &gatewaypb.ReturnRequest{
			Result: &gatewaypb.Result{},
			Error:  &statuspb.Status{Code: 5},
		},
		wire: join(
			msg(1),
			msg(2, num(1, 5)),
		),
	},
	{
		name:    "moby.buildkit.v1.frontend.ReturnResponse",
		message: &gatewaypb.ReturnResponse{},
	},
	{
		name:    "moby.buildkit.v1.frontend.InputsRequest",
		message: &gatewaypb.InputsRequest{},
	},
	{
		name: "moby.buildkit.v1.frontend.InputsResponse",
		message: &gatewaypb.InputsResponse{
			Definitions: map[string]*pb.Definition{"k": {Def: [][]byte{[]byte("x")}}},
		},
		wire: join(
			msg(1, str(1, "k"), msg(2, str(1, "x"))),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveImageConfigRequest",
		message: &gatewaypb.ResolveImageConfigRequest{
			Ref:            "ref",
			Platform:       &pb.Platform{Architecture: "architecture"},
			ResolveMode:    "resolvemode",
			LogName:        "logname",
			ResolverType:   105,
			SessionID:      "sessionid",
			StoreID:        "storeid",
			SourcePolicies: []*sourcepolicypb.Policy{{Version: 101}, {}},
		},
		wire: join(
			str(1, "ref"),
			msg(2, str(1, "architecture")),
			str(3, "resolvemode"),
			str(4, "logname"),
			num(5, 105),
			str(6, "sessionid"),
			str(7, "storeid"),
			msg(8, num(1, 101)),
			msg(8),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveImageConfigResponse",
		message: &gatewaypb.ResolveImageConfigResponse{
			Digest: "digest",
			Config: []byte("config"),
			Ref:    "ref",
		},
		wire: join(
			str(1, "digest"),
			str(2, "config"),
			str(3, "ref"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceMetaRequest",
		message: &gatewaypb.ResolveSourceMetaRequest{
			Source:         &pb.SourceOp{Identifier: "identifier"},
			Platform:       &pb.Platform{Architecture: "architecture"},
			LogName:        "logname",
			ResolveMode:    "resolvemode",
			Git:            &gatewaypb.ResolveSourceGitRequest{ReturnObject: true},
			Image:          &gatewaypb.ResolveSourceImageRequest{NoConfig: true},
			HTTP:           &gatewaypb.ResolveSourceHTTPRequest{},
			SourcePolicies: []*sourcepolicypb.Policy{{Version: 101}, {}},
		},
		wire: join(
			msg(1, str(1, "identifier")),
			msg(2, str(1, "architecture")),
			str(3, "logname"),
			str(4, "resolvemode"),
			msg(5, num(1, 1)),
			msg(6, num(1, 1)),
			msg(7),
			msg(8, num(1, 101)),
			msg(8),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceMetaResponse",
		message: &gatewaypb.ResolveSourceMetaResponse{
			Source: &pb.SourceOp{Identifier: "identifier"},
			Image:  &gatewaypb.ResolveSourceImageResponse{Digest: "digest"},
			Git:    &gatewaypb.ResolveSourceGitResponse{Checksum: "checksum"},
			HTTP:   &gatewaypb.ResolveSourceHTTPResponse{Checksum: "checksum"},
		},
		wire: join(
			msg(1, str(1, "identifier")),
			msg(2, str(1, "digest")),
			msg(3, str(1, "checksum")),
			msg(4, str(1, "checksum")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceImageRequest",
		message: &gatewaypb.ResolveSourceImageRequest{
			NoConfig:            true,
			AttestationChain:    true,
			ResolveAttestations: []string{"resolveattestations", "resolveattestations2"},
		},
		wire: join(
			num(1, 1),
			num(2, 1),
			str(3, "resolveattestations"),
			str(3, "resolveattestations2"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.AttestationChain",
		message: &gatewaypb.AttestationChain{
			Root:                "root",
			ImageManifest:       "imagemanifest",
			AttestationManifest: "attestationmanifest",
			SignatureManifests:  []string{"signaturemanifests", "signaturemanifests2"},
			Blobs:               map[string]*gatewaypb.Blob{"k": {Data: []byte("data")}},
		},
		wire: join(
			str(1, "root"),
			str(2, "imagemanifest"),
			str(3, "attestationmanifest"),
			str(4, "signaturemanifests"),
			str(4, "signaturemanifests2"),
			msg(5, str(1, "k"), msg(2, str(2, "data"))),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceImageResponse",
		message: &gatewaypb.ResolveSourceImageResponse{
			Digest:           "digest",
			Config:           []byte("config"),
			AttestationChain: &gatewaypb.AttestationChain{Root: "root"},
		},
		wire: join(
			str(1, "digest"),
			str(2, "config"),
			msg(3, str(1, "root")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceGitRequest",
		message: &gatewaypb.ResolveSourceGitRequest{
			ReturnObject: true,
		},
		wire: join(
			num(1, 1),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceGitResponse",
		message: &gatewaypb.ResolveSourceGitResponse{
			Checksum:       "checksum",
			Ref:            "ref",
			CommitChecksum: "commitchecksum",
			CommitObject:   []byte("commitobject"),
			TagObject:      []byte("tagobject"),
		},
		wire: join(
			str(1, "checksum"),
			str(2, "ref"),
			str(3, "commitchecksum"),
			str(4, "commitobject"),
			str(5, "tagobject"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceHTTPResponse",
		message: &gatewaypb.ResolveSourceHTTPResponse{
			Checksum:         "checksum",
			Filename:         "filename",
			LastModified:     &timestamppb.Timestamp{Seconds: 7},
			ChecksumResponse: &gatewaypb.ChecksumResponse{Digest: "digest"},
		},
		wire: join(
			str(1, "checksum"),
			str(2, "filename"),
			msg(3, num(1, 7)),
			msg(4, str(1, "digest")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResolveSourceHTTPRequest",
		message: &gatewaypb.ResolveSourceHTTPRequest{
			ChecksumRequest: &gatewaypb.ChecksumRequest{Suffix: []byte("suffix")},
		},
		wire: join(
			msg(1, str(2, "suffix")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ChecksumRequest",
		message: &gatewaypb.ChecksumRequest{
			Algo:   gatewaypb.ChecksumRequest_CHECKSUM_ALGO_SHA512,
			Suffix: []byte("suffix"),
		},
		wire: join(
			num(1, 2),
			str(2, "suffix"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ChecksumResponse",
		message: &gatewaypb.ChecksumResponse{
			Digest: "digest",
			Suffix: []byte("suffix"),
		},
		wire: join(
			str(1, "digest"),
			str(2, "suffix"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.SolveRequest",
		message: &gatewaypb.SolveRequest{
			Definition:          &pb.Definition{Def: [][]byte{[]byte("x")}},
			Frontend:            "frontend",
			FrontendOpt:         map[string]string{"k": "frontendopt"},
			AllowResultReturn:   true,
			AllowResultArrayRef: true,
			Final:               true,
			ExporterAttr:        []byte("exporterattr"),
			CacheImports:        []*gatewaypb.CacheOptionsEntry{{Type: "type"}, {}},
			FrontendInputs:      map[string]*pb.Definition{"k": {Def: [][]byte{[]byte("x")}}},
			Evaluate:            true,
			SourcePolicies:      []*sourcepolicypb.Policy{{Version: 101}, {}},
		},
		wire: join(
			msg(1, str(1, "x")),
			str(2, "frontend"),
			msg(3, str(1, "k"), str(2, "frontendopt")),
			num(5, 1),
			num(6, 1),
			num(10, 1),
			str(11, "exporterattr"),
			msg(12, str(1, "type")),
			msg(12),
			msg(13, str(1, "k"), msg(2, str(1, "x"))),
			num(14, 1),
			msg(15, num(1, 101)),
			msg(15),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.CacheOptionsEntry",
		message: &gatewaypb.CacheOptionsEntry{
			Type:  "type",
			Attrs: map[string]string{"k": "attrs"},
		},
		wire: join(
			str(1, "type"),
			msg(2, str(1, "k"), str(2, "attrs")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.SolveResponse",
		message: &gatewaypb.SolveResponse{
			Ref:    "ref",
			Result: &gatewaypb.Result{},
		},
		wire: join(
			str(1, "ref"),
			msg(3),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ReadFileRequest",
		message: &gatewaypb.ReadFileRequest{
			Ref:        "ref",
			FilePath:   "filepath",
			Range:      &gatewaypb.FileRange{Offset: 101},
			MountIndex: 104,
		},
		wire: join(
			str(1, "ref"),
			str(2, "filepath"),
			msg(3, num(1, 101)),
			num(4, 104),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.FileRange",
		message: &gatewaypb.FileRange{
			Offset: 101,
			Length: 102,
		},
		wire: join(
			num(1, 101),
			num(2, 102),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ReadFileResponse",
		message: &gatewaypb.ReadFileResponse{
			Data: []byte("data"),
		},
		wire: join(
			str(1, "data"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ReadDirRequest",
		message: &gatewaypb.ReadDirRequest{
			Ref:            "ref",
			DirPath:        "dirpath",
			IncludePattern: "includepattern",
			MountIndex:     104,
		},
		wire: join(
			str(1, "ref"),
			str(2, "dirpath"),
			str(3, "includepattern"),
			num(4, 104),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ReadDirResponse",
		message: &gatewaypb.ReadDirResponse{
			Entries: []*fstypes.Stat{{Path: "p"}, {}},
		},
		wire: join(
			msg(1, str(1, "p")),
			msg(1),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.StatFileRequest",
		message: &gatewaypb.StatFileRequest{
			Ref:        "ref",
			Path:       "path",
			MountIndex: 103,
		},
		wire: join(
			str(1, "ref"),
			str(2, "path"),
			num(3, 103),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.StatFileResponse",
		message: &gatewaypb.StatFileResponse{
			Stat: &fstypes.Stat{Path: "p"},
		},
		wire: join(
			msg(1, str(1, "p")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.EvaluateRequest",
		message: &gatewaypb.EvaluateRequest{
			Ref: "ref",
		},
		wire: join(
			str(1, "ref"),
		),
	},
	{
		name:    "moby.buildkit.v1.frontend.EvaluateResponse",
		message: &gatewaypb.EvaluateResponse{},
	},
	{
		name:    "moby.buildkit.v1.frontend.PingRequest",
		message: &gatewaypb.PingRequest{},
	},
	{
		name: "moby.buildkit.v1.frontend.PongResponse",
		message: &gatewaypb.PongResponse{
			FrontendAPICaps: []*capspb.APICap{{ID: "id"}, {}},
			LLBCaps:         []*capspb.APICap{{ID: "id"}, {}},
			Workers:         []*workerspb.WorkerRecord{{ID: "id"}, {}},
		},
		wire: join(
			msg(1, str(1, "id")),
			msg(1),
			msg(2, str(1, "id")),
			msg(2),
			msg(3, str(1, "id")),
			msg(3),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.WarnRequest",
		message: &gatewaypb.WarnRequest{
			Digest: "digest",
			Level:  102,
			Short:  []byte("short"),
			Detail: [][]byte{[]byte("detail"), []byte("detail2")},
			Url:    "url",
			Info:   &pb.SourceInfo{Filename: "filename"},
			Ranges: []*pb.Range{{}, {}},
		},
		wire: join(
			str(1, "digest"),
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
		name:    "moby.buildkit.v1.frontend.WarnResponse",
		message: &gatewaypb.WarnResponse{},
	},
	{
		name: "moby.buildkit.v1.frontend.NewContainerRequest",
		message: &gatewaypb.NewContainerRequest{
			ContainerID: "containerid",
			Mounts:      []*pb.Mount{{Input: 101}, {}},
			Network:     pb.NetMode_NONE,
			Platform:    &pb.Platform{Architecture: "architecture"},
			Constraints: &pb.WorkerConstraints{Filter: []string{"x"}},
			ExtraHosts:  []*pb.HostIP{{Host: "host"}, {}},
			Hostname:    "hostname",
		},
		wire: join(
			str(1, "containerid"),
			msg(2, num(1, 101)),
			msg(2),
			num(3, 2),
			msg(4, str(1, "architecture")),
			msg(5, str(1, "x")),
			msg(6, str(1, "host")),
			msg(6),
			str(7, "hostname"),
		),
	},
	{
		name:    "moby.buildkit.v1.frontend.NewContainerResponse",
		message: &gatewaypb.NewContainerResponse{},
	},
	{
		name: "moby.buildkit.v1.frontend.ReleaseContainerRequest",
		message: &gatewaypb.ReleaseContainerRequest{
			ContainerID: "containerid",
		},
		wire: join(
			str(1, "containerid"),
		),
	},
	{
		name:    "moby.buildkit.v1.frontend.ReleaseContainerResponse",
		message: &gatewaypb.ReleaseContainerResponse{},
	},
	{
		name: "moby.buildkit.v1.frontend.ExecMessage with Init",
		message: &gatewaypb.ExecMessage{
			ProcessID: "processid",
			Input:     &gatewaypb.ExecMessage_Init{Init: &gatewaypb.InitMessage{ContainerID: "containerid"}},
		},
		wire: join(
			str(1, "processid"),
			msg(2, str(1, "containerid")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ExecMessage with File",
		message: &gatewaypb.ExecMessage{
			Input: &gatewaypb.ExecMessage_File{File: &gatewaypb.FdMessage{Fd: 101}},
		},
		wire: join(
			msg(3, num(1, 101)),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ExecMessage with Resize",
		message: &gatewaypb.ExecMessage{
			Input: &gatewaypb.ExecMessage_Resize{Resize: &gatewaypb.ResizeMessage{Rows: 101}},
		},
		wire: join(
			msg(4, num(1, 101)),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ExecMessage with Started",
		message: &gatewaypb.ExecMessage{
			Input: &gatewaypb.ExecMessage_Started{Started: &gatewaypb.StartedMessage{}},
		},
		wire: join(
			msg(5),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ExecMessage with Exit",
		message: &gatewaypb.ExecMessage{
			Input: &gatewaypb.ExecMessage_Exit{Exit: &gatewaypb.ExitMessage{Code: 101}},
		},
		wire: join(
			msg(6, num(1, 101)),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ExecMessage with Done",
		message: &gatewaypb.ExecMessage{
			Input: &gatewaypb.ExecMessage_Done{Done: &gatewaypb.DoneMessage{}},
		},
		wire: join(
			msg(7),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ExecMessage with Signal",
		message: &gatewaypb.ExecMessage{
			Input: &gatewaypb.ExecMessage_Signal{Signal: &gatewaypb.SignalMessage{Name: "name"}},
		},
		wire: join(
			msg(8, str(1, "name")),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.InitMessage",
		message: &gatewaypb.InitMessage{
			ContainerID: "containerid",
			Meta:        &pb.Meta{Cwd: "cwd"},
			Fds:         []uint32{103, 203},
			Tty:         true,
			Security:    pb.SecurityMode_INSECURE,
			Secretenv:   []*pb.SecretEnv{{ID: "id"}, {}},
		},
		wire: join(
			str(1, "containerid"),
			msg(2, str(3, "cwd")),
			packed(3, 103, 203),
			num(4, 1),
			num(5, 1),
			msg(6, str(1, "id")),
			msg(6),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ExitMessage",
		message: &gatewaypb.ExitMessage{
			Code:  101,
			Error: &statuspb.Status{Code: 5},
		},
		wire: join(
			num(1, 101),
			msg(2, num(1, 5)),
		),
	},
	{
		name:    "moby.buildkit.v1.frontend.StartedMessage",
		message: &gatewaypb.StartedMessage{},
	},
	{
		name:    "moby.buildkit.v1.frontend.DoneMessage",
		message: &gatewaypb.DoneMessage{},
	},
	{
		name: "moby.buildkit.v1.frontend.FdMessage",
		message: &gatewaypb.FdMessage{
			Fd:   101,
			EOF:  true,
			Data: []byte("data"),
		},
		wire: join(
			num(1, 101),
			num(2, 1),
			str(3, "data"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.ResizeMessage",
		message: &gatewaypb.ResizeMessage{
			Rows: 101,
			Cols: 102,
		},
		wire: join(
			num(1, 101),
			num(2, 102),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.SignalMessage",
		message: &gatewaypb.SignalMessage{
			Name: "name",
		},
		wire: join(
			str(1, "name"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Blob",
		message: &gatewaypb.Blob{
			Descriptor_: &gatewaypb.Descriptor{MediaType: "media_type"},
			Data:        []byte("data"),
		},
		wire: join(
			msg(1, str(1, "media_type")),
			str(2, "data"),
		),
	},
	{
		name: "moby.buildkit.v1.frontend.Descriptor",
		message: &gatewaypb.Descriptor{
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
}
