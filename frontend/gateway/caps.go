package gateway

import (
	"maps"
	"slices"

	"google.golang.org/grpc/codes"

	capspb "github.com/openbuildkit/buildkit/api/caps"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
)

// support says how an id is advertised. An id enters a list together with what implements it:
// clients use at once what they find there.
type support struct{ deprecated bool }

var llbCaps = map[string]support{
	pb.CapSourceImage:            {},
	pb.CapSourceImageResolveMode: {},
	pb.CapSourceImageLayerLimit:  {},
	pb.CapSourceImageChecksum:    {},
	pb.CapSourceImageBlob:        {},
	pb.CapSourceOCILayout:        {},

	pb.CapSourceLocal:                 {},
	pb.CapSourceLocalUnique:           {},
	pb.CapSourceLocalSessionID:        {},
	pb.CapSourceLocalIncludePatterns:  {},
	pb.CapSourceLocalFollowPaths:      {},
	pb.CapSourceLocalExcludePatterns:  {},
	pb.CapSourceLocalSharedKeyHint:    {},
	pb.CapSourceLocalDiffer:           {},
	pb.CapSourceLocalMetadataTransfer: {},

	pb.CapSourceGit:                {},
	pb.CapSourceGitBundle:          {},
	pb.CapSourceGitCheckoutBundle:  {},
	pb.CapSourceGitChecksum:        {},
	pb.CapSourceGitFetchByCommit:   {},
	pb.CapSourceGitFullURL:         {},
	pb.CapSourceGitHTTPAuth:        {},
	pb.CapSourceGitKeepDir:         {},
	pb.CapSourceGitKnownSSHHosts:   {},
	pb.CapSourceGitMTime:           {},
	pb.CapSourceGitMountSSHSock:    {},
	pb.CapSourceGitSignatureVerify: {},
	pb.CapSourceGitSkipSubmodules:  {},
	pb.CapSourceGitSubdir:          {},

	pb.CapSourceHTTP:                {},
	pb.CapSourceHTTPAuth:            {},
	pb.CapSourceHTTPChecksum:        {},
	pb.CapSourceHTTPHeader:          {},
	pb.CapSourceHTTPPerm:            {},
	pb.CapSourceHTTPSignatureVerify: {},
	pb.CapSourceHTTPUIDGID:          {},

	pb.CapExecMetaBase:            {},
	pb.CapExecMetaCDI:             {},
	pb.CapExecMetaCgroupParent:    {},
	pb.CapExecMetaLinuxResources:  {},
	pb.CapExecMetaNetwork:         {},
	pb.CapExecMetaProxyEnv:        {},
	pb.CapExecMetaSecurity:        {},
	pb.CapExecMetaSecurityDevices: {},
	pb.CapExecMetaSetsDefaultPath: {},
	pb.CapExecMetaUlimit:          {},
	pb.CapExecCgroup:              {},
	pb.CapExecMountBind:           {},
	pb.CapExecMountBindRWNoOutput: {},
	pb.CapExecMountCache:          {},
	pb.CapExecMountCacheContent:   {},
	pb.CapExecMountCacheSharing:   {},
	pb.CapExecMountSecret:         {},
	pb.CapExecMountSelector:       {},
	pb.CapExecMountSSH:            {},
	pb.CapExecMountTmpfs:          {},
	pb.CapExecMountTmpfsSize:      {},
	pb.CapExecSecretEnv:           {},
	pb.CapExecValidExitCode:       {},

	pb.CapFileBase:              {},
	pb.CapFileCopyAlwaysReplace: {},
	pb.CapFileCopyPatterns:      {},
	pb.CapFileCopyRequiredPaths: {},
	pb.CapFileRmNoFollowSymlink: {},
	pb.CapFileRmWildcard:        {},
	pb.CapFileSymlinkCreate:     {},

	pb.CapSourcePolicy:        {},
	pb.CapSourcePolicySession: {},

	pb.CapMergeOp:               {},
	pb.CapSourceBuildOpFilename: {},
	pb.CapDiffOp:                {},
	pb.CapPassthroughOp:         {},

	pb.CapConstraints:     {},
	pb.CapPlatform:        {},
	pb.CapMetaIgnoreCache: {},
	pb.CapMetaDescription: {},
	pb.CapMetaExportCache: {},

	pb.CapExporterImageAnnotations:  {},
	pb.CapExporterImageAttestations: {},
	pb.CapExporterMultiple:          {},
	pb.CapExporterSession:           {},
	pb.CapExporterSourceDateEpoch:   {},
	pb.CapGCFreeSpaceFilter:         {},
	pb.CapHistoryFilter:             {},
}

// silentLLBCaps exist in the field but no daemon has ever advertised them. Ops that name them
// are accepted: what they stand for is implemented.
var silentLLBCaps = map[string]bool{
	"exec.meta.removemountstubs.recursive": true,
	"file.copy.modestring":                 true,
}

var gatewayCaps = map[string]support{
	gatewaypb.CapSolveBase:               {},
	gatewaypb.CapSolveInlineReturn:       {deprecated: true},
	gatewaypb.CapResolveImage:            {},
	gatewaypb.CapResolveImageResolveMode: {},
	gatewaypb.CapReadFile:                {},
	gatewaypb.CapReturnResult:            {},
	gatewaypb.CapReturnMap:               {},
	gatewaypb.CapReadDir:                 {},
	gatewaypb.CapStatFile:                {},
	gatewaypb.CapProtoRefArray:           {},
	gatewaypb.CapReferenceOutput:         {},
	gatewaypb.CapReferenceAttestations:   {},
	gatewaypb.CapFrontendInputs:          {},
	gatewaypb.CapFrontendCaps:            {},
	gatewaypb.CapGatewaySolveMetadata:    {},
	gatewaypb.CapGatewaySolveEvaluate:    {},
	gatewaypb.CapGatewayEvaluate:         {},
	gatewaypb.CapGatewayWarnings:         {},
	gatewaypb.CapSourceMetaResolver:      {},

	gatewaypb.CapSourceMetaResolverImageAttestations: {}, gatewaypb.CapGatewayExec: {},
	gatewaypb.CapGatewayExecExtraHosts: {},
	gatewaypb.CapGatewayExecFilesystem: {},
	gatewaypb.CapGatewayExecSecretEnv:  {},
	gatewaypb.CapGatewayExecSignals:    {},

	gatewaypb.CapSourceMetaResolverHTTPChecksumRequest: {},
}

// LLBCaps returns the ids of the LLB capabilities that the daemon has. The map is the caller's.
func LLBCaps() map[string]bool { return ids(llbCaps) }

// Caps returns the ids of the gateway capabilities that the daemon has. The map is the caller's.
func Caps() map[string]bool { return ids(gatewayCaps) }

// CheckLLB returns an error of code Unimplemented if ops may not name the LLB capability id.
func CheckLLB(id string) error {
	if _, ok := llbCaps[id]; ok || silentLLBCaps[id] {
		return nil
	}
	return status.New(codes.Unimplemented, "unknown API capability "+id)
}

func ids(list map[string]support) map[string]bool {
	out := make(map[string]bool, len(list))
	for id := range list {
		out[id] = true
	}
	return out
}

// encodeCaps returns the list as it is advertised, sorted by id.
func encodeCaps(list map[string]support) []*capspb.APICap {
	out := make([]*capspb.APICap, 0, len(list))
	for _, id := range slices.Sorted(maps.Keys(list)) {
		out = append(out, &capspb.APICap{ID: id, Enabled: true, Deprecated: list[id].deprecated})
	}
	return out
}
