package gateway

import (
	"github.com/opencontainers/go-digest"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	client "github.com/openbuildkit/buildkit/client/gateway"
)

// encodeAttestations keeps the references of attestations under fresh ids.
func (s *Server) encodeAttestations(all map[string][]client.Attestation) map[string]*gatewaypb.Attestations {
	if len(all) == 0 {
		return nil
	}
	out := make(map[string]*gatewaypb.Attestations, len(all))
	for id, list := range all {
		msgs := &gatewaypb.Attestations{}
		for _, a := range list {
			msg := &gatewaypb.Attestation{
				Kind: a.Kind, Metadata: a.Metadata, Ref: s.encodeRef(a.Ref), Path: a.Path, InTotoPredicateType: a.PredicateType,
			}
			for _, sub := range a.Subjects {
				digests := make([]string, len(sub.Digest))
				for i, d := range sub.Digest {
					digests[i] = d.String()
				}
				msg.InTotoSubjects = append(msg.InTotoSubjects, &gatewaypb.InTotoSubject{Kind: sub.Kind, Name: sub.Name, Digest: digests})
			}
			msgs.Attestation = append(msgs.Attestation, msg)
		}
		out[id] = msgs
	}
	return out
}

// decodeAttestations finds the references of attestations that a frontend returns.
func (s *Server) decodeAttestations(all map[string]*gatewaypb.Attestations) (map[string][]client.Attestation, error) {
	if len(all) == 0 {
		return nil, nil
	}
	out := make(map[string][]client.Attestation, len(all))
	for id, list := range all {
		for i, msg := range list.GetAttestation() {
			a, err := s.decodeAttestation(msg)
			if err != nil {
				return nil, invalid("attestation %d of %q: %v", i, id, err)
			}
			out[id] = append(out[id], a)
		}
	}
	return out, nil
}

func (s *Server) decodeAttestation(msg *gatewaypb.Attestation) (client.Attestation, error) {
	a := client.Attestation{
		Kind: msg.GetKind(), Metadata: msg.GetMetadata(), Path: msg.GetPath(), PredicateType: msg.GetInTotoPredicateType(),
	}
	if _, known := gatewaypb.AttestationKind_name[int32(a.Kind)]; !known {
		return a, invalid("unknown attestation kind %d", a.Kind)
	}
	if msg.GetRef().GetId() == "" {
		return a, invalid("it has no reference")
	}
	var err error
	if a.Ref, err = s.returnedRef(msg.GetRef().GetId()); err != nil {
		return a, err
	}
	for _, sub := range msg.GetInTotoSubjects() {
		own := client.Subject{Kind: sub.GetKind(), Name: sub.GetName()}
		if _, known := gatewaypb.InTotoSubjectKind_name[int32(own.Kind)]; !known {
			return a, invalid("unknown subject kind %d", own.Kind)
		}
		for _, d := range sub.GetDigest() {
			dgst, err := digest.Parse(d)
			if err != nil {
				return a, invalid("digest %q of its subject %q: %v", d, own.Name, err)
			}
			own.Digest = append(own.Digest, dgst)
		}
		a.Subjects = append(a.Subjects, own)
	}
	return a, nil
}
