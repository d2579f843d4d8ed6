package blob

// Annotations by which an index says that a manifest is about another one of it, and a manifest of
// what type a statement is; see
// https://docs.docker.com/build/metadata/attestations/attestation-storage/.
const (
	AnnotationReferenceType   = "vnd.docker.reference.type"
	AnnotationReferenceDigest = "vnd.docker.reference.digest"
	// ReferenceAttestation is the type of manifests that hold statements.
	ReferenceAttestation = "attestation-manifest"

	AnnotationPredicateType = "in-toto.io/predicate-type"
	// MediaTypeStatement is that of statements, and of predicates alone where the context is clear.
	MediaTypeStatement = "application/vnd.in-toto+json"
)
