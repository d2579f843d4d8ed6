package api_test

// services lists every service of ours with its methods, as clients call them.
var services = map[string][]method{
	"moby.buildkit.v1.Control": {
		{name: "DiskUsage", in: "moby.buildkit.v1.DiskUsageRequest", out: "moby.buildkit.v1.DiskUsageResponse"},
		{name: "Prune", in: "moby.buildkit.v1.PruneRequest", out: "moby.buildkit.v1.UsageRecord", serverStreams: true},
		{name: "Solve", in: "moby.buildkit.v1.SolveRequest", out: "moby.buildkit.v1.SolveResponse"},
		{name: "Status", in: "moby.buildkit.v1.StatusRequest", out: "moby.buildkit.v1.StatusResponse", serverStreams: true},
		{name: "Session", in: "moby.buildkit.v1.BytesMessage", clientStreams: true, out: "moby.buildkit.v1.BytesMessage", serverStreams: true},
		{name: "ListWorkers", in: "moby.buildkit.v1.ListWorkersRequest", out: "moby.buildkit.v1.ListWorkersResponse"},
		{name: "Info", in: "moby.buildkit.v1.InfoRequest", out: "moby.buildkit.v1.InfoResponse"},
		{name: "ListenBuildHistory", in: "moby.buildkit.v1.BuildHistoryRequest", out: "moby.buildkit.v1.BuildHistoryEvent", serverStreams: true},
		{name: "UpdateBuildHistory", in: "moby.buildkit.v1.UpdateBuildHistoryRequest", out: "moby.buildkit.v1.UpdateBuildHistoryResponse"},
	},
	"moby.buildkit.v1.frontend.LLBBridge": {
		{name: "ResolveImageConfig", in: "moby.buildkit.v1.frontend.ResolveImageConfigRequest", out: "moby.buildkit.v1.frontend.ResolveImageConfigResponse"},
		{name: "ResolveSourceMeta", in: "moby.buildkit.v1.frontend.ResolveSourceMetaRequest", out: "moby.buildkit.v1.frontend.ResolveSourceMetaResponse"},
		{name: "Solve", in: "moby.buildkit.v1.frontend.SolveRequest", out: "moby.buildkit.v1.frontend.SolveResponse"},
		{name: "ReadFile", in: "moby.buildkit.v1.frontend.ReadFileRequest", out: "moby.buildkit.v1.frontend.ReadFileResponse"},
		{name: "ReadDir", in: "moby.buildkit.v1.frontend.ReadDirRequest", out: "moby.buildkit.v1.frontend.ReadDirResponse"},
		{name: "StatFile", in: "moby.buildkit.v1.frontend.StatFileRequest", out: "moby.buildkit.v1.frontend.StatFileResponse"},
		{name: "Evaluate", in: "moby.buildkit.v1.frontend.EvaluateRequest", out: "moby.buildkit.v1.frontend.EvaluateResponse"},
		{name: "Ping", in: "moby.buildkit.v1.frontend.PingRequest", out: "moby.buildkit.v1.frontend.PongResponse"},
		{name: "Return", in: "moby.buildkit.v1.frontend.ReturnRequest", out: "moby.buildkit.v1.frontend.ReturnResponse"},
		{name: "Inputs", in: "moby.buildkit.v1.frontend.InputsRequest", out: "moby.buildkit.v1.frontend.InputsResponse"},
		{name: "NewContainer", in: "moby.buildkit.v1.frontend.NewContainerRequest", out: "moby.buildkit.v1.frontend.NewContainerResponse"},
		{name: "ReleaseContainer", in: "moby.buildkit.v1.frontend.ReleaseContainerRequest", out: "moby.buildkit.v1.frontend.ReleaseContainerResponse"},
		{name: "ExecProcess", in: "moby.buildkit.v1.frontend.ExecMessage", clientStreams: true, out: "moby.buildkit.v1.frontend.ExecMessage", serverStreams: true},
		{name: "ReadFileContainer", in: "moby.buildkit.v1.frontend.ReadFileRequest", out: "moby.buildkit.v1.frontend.ReadFileResponse"},
		{name: "ReadDirContainer", in: "moby.buildkit.v1.frontend.ReadDirRequest", out: "moby.buildkit.v1.frontend.ReadDirResponse"},
		{name: "StatFileContainer", in: "moby.buildkit.v1.frontend.StatFileRequest", out: "moby.buildkit.v1.frontend.StatFileResponse"},
		{name: "Warn", in: "moby.buildkit.v1.frontend.WarnRequest", out: "moby.buildkit.v1.frontend.WarnResponse"},
	},
	"moby.filesync.v1.FileSync": {
		{name: "DiffCopy", in: "fsutil.types.Packet", clientStreams: true, out: "fsutil.types.Packet", serverStreams: true},
		{name: "TarStream", in: "fsutil.types.Packet", clientStreams: true, out: "fsutil.types.Packet", serverStreams: true},
	},
	"moby.filesync.v1.FileSend": {
		{name: "DiffCopy", in: "moby.filesync.v1.BytesMessage", clientStreams: true, out: "moby.filesync.v1.BytesMessage", serverStreams: true},
	},
	"moby.filesync.v1.Auth": {
		{name: "Credentials", in: "moby.filesync.v1.CredentialsRequest", out: "moby.filesync.v1.CredentialsResponse"},
		{name: "FetchToken", in: "moby.filesync.v1.FetchTokenRequest", out: "moby.filesync.v1.FetchTokenResponse"},
		{name: "GetTokenAuthority", in: "moby.filesync.v1.GetTokenAuthorityRequest", out: "moby.filesync.v1.GetTokenAuthorityResponse"},
		{name: "VerifyTokenAuthority", in: "moby.filesync.v1.VerifyTokenAuthorityRequest", out: "moby.filesync.v1.VerifyTokenAuthorityResponse"},
	},
	"moby.buildkit.secrets.v1.Secrets": {
		{name: "GetSecret", in: "moby.buildkit.secrets.v1.GetSecretRequest", out: "moby.buildkit.secrets.v1.GetSecretResponse"},
	},
	"moby.sshforward.v1.SSH": {
		{name: "CheckAgent", in: "moby.sshforward.v1.CheckAgentRequest", out: "moby.sshforward.v1.CheckAgentResponse"},
		{name: "ForwardAgent", in: "moby.sshforward.v1.BytesMessage", clientStreams: true, out: "moby.sshforward.v1.BytesMessage", serverStreams: true},
	},
	"moby.upload.v1.Upload": {
		{name: "Pull", in: "moby.upload.v1.BytesMessage", clientStreams: true, out: "moby.upload.v1.BytesMessage", serverStreams: true},
	},
	"moby.exporter.v1.Exporter": {
		{name: "FindExporters", in: "moby.exporter.v1.FindExportersRequest", out: "moby.exporter.v1.FindExportersResponse"},
		{name: "FinalizeExport", in: "moby.exporter.v1.FinalizeExportRequest", out: "moby.exporter.v1.FinalizeExportResponse"},
	},
	"moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier": {
		{name: "CheckPolicy", in: "moby.buildkit.v1.sourcepolicy.policysession.CheckPolicyRequest", out: "moby.buildkit.v1.sourcepolicy.policysession.CheckPolicyResponse"},
	},
}

// enums lists every enumeration of ours with its numbers.
var enums = map[string]map[string]int32{
	"moby.buildkit.v1.BuildHistoryEventType":     {"STARTED": 0, "COMPLETE": 1, "DELETED": 2},
	"moby.buildkit.v1.sourcepolicy.PolicyAction": {"ALLOW": 0, "DENY": 1, "CONVERT": 2},
	"moby.buildkit.v1.sourcepolicy.AttrMatch":    {"EQUAL": 0, "NOTEQUAL": 1, "MATCHES": 2},
	"moby.buildkit.v1.sourcepolicy.MatchType":    {"WILDCARD": 0, "EXACT": 1, "REGEX": 2},
	"pb.NetMode":           {"UNSET": 0, "HOST": 1, "NONE": 2},
	"pb.SecurityMode":      {"SANDBOX": 0, "INSECURE": 1},
	"pb.MountType":         {"BIND": 0, "SECRET": 1, "SSH": 2, "CACHE": 3, "TMPFS": 4},
	"pb.MountContentCache": {"DEFAULT": 0, "ON": 1, "OFF": 2},
	"pb.CacheSharingOpt":   {"SHARED": 0, "PRIVATE": 1, "LOCKED": 2},
	"moby.buildkit.v1.frontend.AttestationKind":              {"InToto": 0, "Bundle": 1},
	"moby.buildkit.v1.frontend.InTotoSubjectKind":            {"Self": 0, "Raw": 1},
	"moby.buildkit.v1.frontend.ChecksumRequest.ChecksumAlgo": {"CHECKSUM_ALGO_SHA256": 0, "CHECKSUM_ALGO_SHA384": 1, "CHECKSUM_ALGO_SHA512": 2},
}
