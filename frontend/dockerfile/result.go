package dockerfile

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/client/gateway"
)

// Keys of the metadata of results.
const (
	keyConfig     = "containerimage.config"
	keyBaseConfig = "containerimage.base.config"
	keyPlatforms  = "refs.platforms"
	keyEpoch      = "source.date.epoch"
)

// setPlatforms sets the metadata key that says which platforms a result is for.
func setPlatforms(res *gateway.Result, results []platformResult) error {
	type platform struct {
		ID       string
		Platform ocispec.Platform
	}
	var list struct{ Platforms []platform }
	for _, r := range results {
		list.Platforms = append(list.Platforms, platform{platforms.Format(r.platform), r.platform})
	}
	dt, err := json.Marshal(list)
	if err != nil {
		return err
	}
	res.SetMeta(keyPlatforms, dt)
	return nil
}

func epochText(t *time.Time) []byte { return strconv.AppendInt(nil, t.Unix(), 10) }
