package lint

const urlPrefix = "https://docs.docker.com/go/dockerfile/rule/"

// The rules. Names and urls are known to users and tools.
var (
	StageNameCasing = &Rule{
		Name:        "StageNameCasing",
		Description: "Names of stages should be in lower case",
		URL:         urlPrefix + "stage-name-casing/",
	}
	FromAsCasing = &Rule{
		Name:        "FromAsCasing",
		Description: "FROM and AS should be written in the same case",
		URL:         urlPrefix + "from-as-casing/",
	}
	NoEmptyContinuation = &Rule{
		Name:        "NoEmptyContinuation",
		Description: "A continued instruction should not have empty lines in it",
		URL:         urlPrefix + "no-empty-continuation/",
	}
	ConsistentInstructionCasing = &Rule{
		Name:        "ConsistentInstructionCasing",
		Description: "All instructions of a file should be written in the same case",
		URL:         urlPrefix + "consistent-instruction-casing/",
	}
	DuplicateStageName = &Rule{
		Name:        "DuplicateStageName",
		Description: "No two stages should have the same name",
		URL:         urlPrefix + "duplicate-stage-name/",
	}
	ReservedStageName = &Rule{
		Name:        "ReservedStageName",
		Description: "A stage should not have a name that means something else",
		URL:         urlPrefix + "reserved-stage-name/",
	}
	JSONArgsRecommended = &Rule{
		Name:        "JSONArgsRecommended",
		Description: "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
		URL:         urlPrefix + "json-args-recommended/",
	}
	MaintainerDeprecated = &Rule{
		Name:        "MaintainerDeprecated",
		Description: "A label should be used instead of the MAINTAINER instruction",
		URL:         urlPrefix + "maintainer-deprecated/",
	}
	UndefinedArgInFrom = &Rule{
		Name:        "UndefinedArgInFrom",
		Description: "FROM should use only arguments that are declared before it",
		URL:         urlPrefix + "undefined-arg-in-from/",
	}
	WorkdirRelativePath = &Rule{
		Name:        "WorkdirRelativePath",
		Description: "The first WORKDIR should be absolute, because the base image decides what a relative one means",
		URL:         urlPrefix + "workdir-relative-path/",
	}
	UndefinedVar = &Rule{
		Name:        "UndefinedVar",
		Description: "A variable should be set before it is used",
		URL:         urlPrefix + "undefined-var/",
	}
	MultipleInstructionsDisallowed = &Rule{
		Name:        "MultipleInstructionsDisallowed",
		Description: "An instruction that replaces the one before it should be given once in a stage",
		URL:         urlPrefix + "multiple-instructions-disallowed/",
	}
	LegacyKeyValueFormat = &Rule{
		Name:        "LegacyKeyValueFormat",
		Description: "Keys and values should be separated by an equals sign",
		URL:         urlPrefix + "legacy-key-value-format/",
	}
	InvalidBaseImagePlatform = &Rule{
		Name:        "InvalidBaseImagePlatform",
		Description: "The base image is not of the platform that is built for",
	}
	RedundantTargetPlatform = &Rule{
		Name:        "RedundantTargetPlatform",
		Description: "The target platform is the default and need not be given in FROM",
		URL:         urlPrefix + "redundant-target-platform/",
	}
	SecretsUsedInArgOrEnv = &Rule{
		Name:        "SecretsUsedInArgOrEnv",
		Description: "Sensitive data should not be used in the ARG or ENV commands",
		URL:         urlPrefix + "secrets-used-in-arg-or-env/",
	}
	InvalidDefaultArgInFrom = &Rule{
		Name:        "InvalidDefaultArgInFrom",
		Description: "The defaults of the global arguments should give a valid name of a base image",
		URL:         urlPrefix + "invalid-default-arg-in-from/",
	}
	FromPlatformFlagConstDisallowed = &Rule{
		Name:        "FromPlatformFlagConstDisallowed",
		Description: "The platform in FROM should depend on what is built for",
		URL:         urlPrefix + "from-platform-flag-const-disallowed/",
	}
	CopyIgnoredFile = &Rule{
		Name:        "CopyIgnoredFile",
		Description: "A file that .dockerignore excludes cannot be copied",
		URL:         urlPrefix + "copy-ignored-file/",
	}
	InvalidDefinitionDescription = &Rule{
		Name:         "InvalidDefinitionDescription",
		Description:  "The comment above a stage or an argument should begin with its name",
		URL:          urlPrefix + "invalid-definition-description/",
		Experimental: true,
	}
	ExposeProtoCasing = &Rule{
		Name:        "ExposeProtoCasing",
		Description: "Protocols in EXPOSE should be in lower case",
		URL:         urlPrefix + "expose-proto-casing/",
	}
	ExposeInvalidFormat = &Rule{
		Name:        "ExposeInvalidFormat",
		Description: "EXPOSE should name ports of the container only",
		URL:         urlPrefix + "expose-invalid-format/",
	}
)
