package api_test

import (
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	authpb "github.com/openbuildkit/buildkit/api/session/auth"
	exporterpb "github.com/openbuildkit/buildkit/api/session/exporter"
	filesyncpb "github.com/openbuildkit/buildkit/api/session/filesync"
	policysessionpb "github.com/openbuildkit/buildkit/api/session/policy"
	secretspb "github.com/openbuildkit/buildkit/api/session/secrets"
	sshpb "github.com/openbuildkit/buildkit/api/session/ssh"
	uploadpb "github.com/openbuildkit/buildkit/api/session/upload"
	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
)

// sessionCases are the messages of the services of a session.
var sessionCases = []wireCase{
	{
		name: "moby.filesync.v1.BytesMessage",
		message: &filesyncpb.BytesMessage{
			Data: []byte("data"),
		},
		wire: join(
			str(1, "data"),
		),
	},
	{
		name: "moby.filesync.v1.CredentialsRequest",
		message: &authpb.CredentialsRequest{
			Host: "host",
		},
		wire: join(
			str(1, "host"),
		),
	},
	{
		name: "moby.filesync.v1.CredentialsResponse",
		message: &authpb.CredentialsResponse{
			Username: "username",
			Secret:   "secret",
		},
		wire: join(
			str(1, "username"),
			str(2, "secret"),
		),
	},
	{
		name: "moby.filesync.v1.FetchTokenRequest",
		message: &authpb.FetchTokenRequest{
			ClientID: "clientid",
			Host:     "host",
			Realm:    "realm",
			Service:  "service",
			Scopes:   []string{"scopes", "scopes2"},
		},
		wire: join(
			str(1, "clientid"),
			str(2, "host"),
			str(3, "realm"),
			str(4, "service"),
			str(5, "scopes"),
			str(5, "scopes2"),
		),
	},
	{
		name: "moby.filesync.v1.FetchTokenResponse",
		message: &authpb.FetchTokenResponse{
			Token:     "token",
			ExpiresIn: 102,
			IssuedAt:  103,
		},
		wire: join(
			str(1, "token"),
			num(2, 102),
			num(3, 103),
		),
	},
	{
		name: "moby.filesync.v1.GetTokenAuthorityRequest",
		message: &authpb.GetTokenAuthorityRequest{
			Host: "host",
			Salt: []byte("salt"),
		},
		wire: join(
			str(1, "host"),
			str(2, "salt"),
		),
	},
	{
		name: "moby.filesync.v1.GetTokenAuthorityResponse",
		message: &authpb.GetTokenAuthorityResponse{
			PublicKey: []byte("publickey"),
		},
		wire: join(
			str(1, "publickey"),
		),
	},
	{
		name: "moby.filesync.v1.VerifyTokenAuthorityRequest",
		message: &authpb.VerifyTokenAuthorityRequest{
			Host:    "host",
			Payload: []byte("payload"),
			Salt:    []byte("salt"),
		},
		wire: join(
			str(1, "host"),
			str(2, "payload"),
			str(3, "salt"),
		),
	},
	{
		name: "moby.filesync.v1.VerifyTokenAuthorityResponse",
		message: &authpb.VerifyTokenAuthorityResponse{
			Signed: []byte("signed"),
		},
		wire: join(
			str(1, "signed"),
		),
	},
	{
		name: "moby.buildkit.secrets.v1.GetSecretRequest",
		message: &secretspb.GetSecretRequest{
			ID:          "id",
			Annotations: map[string]string{"k": "annotations"},
		},
		wire: join(
			str(1, "id"),
			msg(2, str(1, "k"), str(2, "annotations")),
		),
	},
	{
		name: "moby.buildkit.secrets.v1.GetSecretResponse",
		message: &secretspb.GetSecretResponse{
			Data: []byte("data"),
		},
		wire: join(
			str(1, "data"),
		),
	},
	{
		name: "moby.sshforward.v1.BytesMessage",
		message: &sshpb.BytesMessage{
			Data: []byte("data"),
		},
		wire: join(
			str(1, "data"),
		),
	},
	{
		name: "moby.sshforward.v1.CheckAgentRequest",
		message: &sshpb.CheckAgentRequest{
			ID: "id",
		},
		wire: join(
			str(1, "id"),
		),
	},
	{
		name:    "moby.sshforward.v1.CheckAgentResponse",
		message: &sshpb.CheckAgentResponse{},
	},
	{
		name: "moby.upload.v1.BytesMessage",
		message: &uploadpb.BytesMessage{
			Data: []byte("data"),
		},
		wire: join(
			str(1, "data"),
		),
	},
	{
		name: "moby.exporter.v1.FindExportersRequest",
		message: &exporterpb.FindExportersRequest{
			Metadata: map[string][]byte{"k": []byte("metadata")},
			Refs:     []string{"refs", "refs2"},
		},
		wire: join(
			msg(1, str(1, "k"), str(2, "metadata")),
			str(2, "refs"),
			str(2, "refs2"),
		),
	},
	{
		name: "moby.exporter.v1.FindExportersResponse",
		message: &exporterpb.FindExportersResponse{
			Exporters: []*exporterpb.ExporterRequest{{Type: "type"}, {}},
		},
		wire: join(
			msg(1, str(1, "type")),
			msg(1),
		),
	},
	{
		name: "moby.exporter.v1.ExporterRequest",
		message: &exporterpb.ExporterRequest{
			Type:  "type",
			Attrs: map[string]string{"k": "attrs"},
		},
		wire: join(
			str(1, "type"),
			msg(2, str(1, "k"), str(2, "attrs")),
		),
	},
	{
		name: "moby.exporter.v1.FinalizeExportRequest",
		message: &exporterpb.FinalizeExportRequest{
			ExporterResponse: map[string]string{"k": "exporter_response"},
		},
		wire: join(
			msg(1, str(1, "k"), str(2, "exporter_response")),
		),
	},
	{
		name:    "moby.exporter.v1.FinalizeExportResponse",
		message: &exporterpb.FinalizeExportResponse{},
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.policysession.CheckPolicyRequest",
		message: &policysessionpb.CheckPolicyRequest{
			Platform: &pb.Platform{Architecture: "architecture"},
			Source:   &gatewaypb.ResolveSourceMetaResponse{},
			Caps:     map[string]bool{"k": true},
		},
		wire: join(
			msg(1, str(1, "architecture")),
			msg(2),
			msg(3, str(1, "k"), num(2, 1)),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.policysession.CheckPolicyResponse with decision",
		message: &policysessionpb.CheckPolicyResponse{
			Result: &policysessionpb.CheckPolicyResponse_Decision{Decision: &policysessionpb.DecisionResponse{Action: sourcepolicypb.PolicyAction_CONVERT}},
		},
		wire: join(
			msg(1, num(1, 2)),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.policysession.CheckPolicyResponse with request",
		message: &policysessionpb.CheckPolicyResponse{
			Result: &policysessionpb.CheckPolicyResponse_Request{Request: &gatewaypb.ResolveSourceMetaRequest{LogName: "logname"}},
		},
		wire: join(
			msg(2, str(3, "logname")),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.policysession.DecisionResponse",
		message: &policysessionpb.DecisionResponse{
			Action:       sourcepolicypb.PolicyAction_CONVERT,
			DenyMessages: []*policysessionpb.DenyMessage{{Message: "message"}, {}},
			Update:       &pb.SourceOp{Identifier: "identifier"},
		},
		wire: join(
			num(1, 2),
			msg(2, str(1, "message")),
			msg(2),
			msg(3, str(1, "identifier")),
		),
	},
	{
		name: "moby.buildkit.v1.sourcepolicy.policysession.DenyMessage",
		message: &policysessionpb.DenyMessage{
			Message: "message",
		},
		wire: join(
			str(1, "message"),
		),
	},
}
