package pb

// Schemes of source identifiers, including the separator.
const (
	SchemeImage         = "docker-image://"
	SchemeImageBlob     = "docker-image+blob://"
	SchemeOCILayout     = "oci-layout://"
	SchemeOCILayoutBlob = "oci-layout+blob://"
	SchemeGit           = "git://"
	SchemeLocal         = "local://"
	SchemeHTTP          = "http://"
	SchemeHTTPS         = "https://"
)

// Attribute keys of source ops, by the kind of source that reads them. Lists are JSON arrays of
// strings; booleans are "true".
const (
	AttrImageResolveMode = "image.resolvemode"
	AttrImageRecordType  = "image.recordtype"
	AttrImageLayerLimit  = "image.layerlimit"
	AttrImageChecksum    = "image.checksum"

	AttrOCISession    = "oci.session"
	AttrOCIStore      = "oci.store"
	AttrOCILayerLimit = "oci.layerlimit"

	AttrLocalSession                 = "local.session"
	AttrLocalUnique                  = "local.unique"
	AttrLocalIncludePatterns         = "local.includepattern"
	AttrLocalFollowPaths             = "local.followpaths"
	AttrLocalExcludePatterns         = "local.excludepatterns"
	AttrLocalSharedKeyHint           = "local.sharedkeyhint"
	AttrLocalMetadataTransfer        = "local.metadatatransfer"
	AttrLocalMetadataTransferExclude = "local.metadatatransferexclude"
	AttrLocalDiffer                  = "local.differ"

	AttrGitKeepDir           = "git.keepgitdir"
	AttrGitFullURL           = "git.fullurl"
	AttrGitAuthHeaderSecret  = "git.authheadersecret"
	AttrGitAuthTokenSecret   = "git.authtokensecret"
	AttrGitKnownSSHHosts     = "git.knownsshhosts"
	AttrGitMountSSHSock      = "git.mountsshsock"
	AttrGitChecksum          = "git.checksum"
	AttrGitSkipSubmodules    = "git.skipsubmodules"
	AttrGitMTime             = "git.mtime"
	AttrGitFetchByCommit     = "git.fetchbycommit"
	AttrGitBundle            = "git.bundle"
	AttrGitCheckoutBundle    = "git.checkoutbundle"
	AttrGitSigPubKey         = "git.sig.pubkey"
	AttrGitSigRejectExpired  = "git.sig.rejectexpired"
	AttrGitSigRequireSigned  = "git.sig.requiresignedtag"
	AttrGitSigIgnoreSigned   = "git.sig.ignoresignedtag"
	AttrBuildOpFilename      = "llbbuild.filename"
	AttrHTTPChecksum         = "http.checksum"
	AttrHTTPFilename         = "http.filename"
	AttrHTTPPerm             = "http.perm"
	AttrHTTPUID              = "http.uid"
	AttrHTTPGID              = "http.gid"
	AttrHTTPAuthHeaderSecret = "http.authheadersecret"
	AttrHTTPHeaderPrefix     = "http.header."
	AttrHTTPSigPubKey        = "http.sig.pubkey"
	AttrHTTPSigSignature     = "http.sig.signature"
)

// DescriptionName is the key of an op's description that holds the name shown for its vertex.
const DescriptionName = "llb.customname"

// Indexes with a meaning of their own.
const (
	// NoInput is the input of a mount or file action that starts from nothing.
	NoInput int64 = -1
	// NoOutput is the output of a mount or file action whose result is not kept.
	NoOutput int64 = -1
	// LLBBuilder is the only builder of build ops: one that builds definitions.
	LLBBuilder int64 = -1
)

// LLBDefinition is the key of the input of a build op that holds the definition, and the name of its
// file there unless AttrBuildOpFilename says otherwise.
const LLBDefinition = "buildkit.llb.definition"
