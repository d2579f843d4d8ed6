package gatewaypb

// Capability ids of the gateway API. A daemon advertises the ones it has in the reply to Ping; a
// frontend degrades, or fails with a clear text, where one is missing.
const (
	CapSolveBase                             = "solve.base"
	CapSolveInlineReturn                     = "solve.inlinereturn"
	CapResolveImage                          = "resolveimage"
	CapResolveImageResolveMode               = "resolveimage.resolvemode"
	CapReadFile                              = "readfile"
	CapReturnResult                          = "return"
	CapReturnMap                             = "returnmap"
	CapReadDir                               = "readdir"
	CapStatFile                              = "statfile"
	CapImportCaches                          = "importcaches"
	CapProtoRefArray                         = "proto.refarray"
	CapReferenceOutput                       = "reference.output"
	CapReferenceAttestations                 = "reference.attestations"
	CapFrontendInputs                        = "frontend.inputs"
	CapFrontendCaps                          = "frontend.caps"
	CapGatewaySolveMetadata                  = "gateway.solve.metadata"
	CapGatewaySolveEvaluate                  = "gateway.solve.evaluate"
	CapGatewayEvaluate                       = "gateway.evaluate"
	CapGatewayWarnings                       = "gateway.warnings"
	CapGatewayExec                           = "gateway.exec"
	CapGatewayExecExtraHosts                 = "gateway.exec.extrahosts"
	CapGatewayExecFilesystem                 = "gateway.exec.filesystem"
	CapGatewayExecSecretEnv                  = "gateway.exec.secretenv"
	CapGatewayExecSignals                    = "gateway.exec.signals"
	CapSourceMetaResolver                    = "source.metaresolver"
	CapSourceMetaResolverHTTPChecksumRequest = "source.metaresolver.http.checksumrequest"
	CapSourceMetaResolverImageAttestations   = "source.metaresolver.image.attestations"
)
