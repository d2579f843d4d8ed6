package exporter

// Keys of result metadata and of responses that have a meaning. Those that hold for one platform
// may also be given as <key>/<platform id>, which goes before the plain one.
const (
	// KeyConfig is the image config, JSON; also per platform.
	KeyConfig = "containerimage.config"
	// KeyBaseConfig is the config of the image that the result was built upon; also per platform.
	KeyBaseConfig = "containerimage.base.config"
	// KeyPlatforms is the JSON of Platforms.
	KeyPlatforms = "refs.platforms"
	// KeyEpoch is the time that the result is said to be made, in Unix seconds; also per platform.
	KeyEpoch = "source.date.epoch"

	// KeyDigest is the digest of the image or index, KeyConfigDigest that of the config of an
	// image for one platform, KeyDescriptor the base64 of the JSON of the former's descriptor.
	KeyDigest       = "containerimage.digest"
	KeyConfigDigest = "containerimage.config.digest"
	KeyDescriptor   = "containerimage.descriptor"
	// KeyImageName is the list of the image's names, separated by commas.
	KeyImageName = "image.name"
)

// Attributes that every exporter knows.
const (
	// AttrEpoch is the time in Unix seconds that goes before that of the result; empty for none.
	AttrEpoch = "source-date-epoch"
)
