package lower

import (
	"maps"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	historyComment = "buildkit.dockerfile.v0"
	defaultPath    = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Image is an image configuration with the fields that Docker adds.
type Image struct {
	ocispec.Image
	Config ImageConfig `json:"config"`
}

// ImageConfig is how a container of an image is run.
type ImageConfig struct {
	ocispec.ImageConfig
	Healthcheck *Healthcheck `json:",omitempty"`
	OnBuild     []string     `json:",omitempty"`
	Shell       []string     `json:",omitempty"`
}

// Healthcheck is how a container is probed. The names of its fields are those of the JSON, and
// their order that of the history.
type Healthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// emptyImage is the configuration of the empty tree.
func emptyImage(p ocispec.Platform) *Image {
	img := &Image{}
	img.Platform = imagePlatform(p)
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	img.addDefaultPath()
	return img
}

// forStage returns what a stage of a platform makes of its base image.
func (img *Image) forStage(p ocispec.Platform) *Image {
	img = img.clone()
	img.Created = nil
	img.Platform = imagePlatform(p)
	img.addDefaultPath()
	return img
}

func imagePlatform(p ocispec.Platform) ocispec.Platform {
	return ocispec.Platform{
		OS:           p.OS,
		Architecture: p.Architecture,
		Variant:      p.Variant,
		OSVersion:    p.OSVersion,
		OSFeatures:   slices.Clone(p.OSFeatures),
	}
}

func (img *Image) addDefaultPath() {
	if img.OS == "windows" {
		return
	}
	for _, kv := range img.Config.Env {
		if strings.HasPrefix(kv, "PATH=") {
			return
		}
	}
	img.Config.Env = append(img.Config.Env, "PATH="+defaultPath)
}

// clone returns a copy that may be changed.
func (img *Image) clone() *Image {
	c := *img
	c.History = slices.Clip(img.History)
	c.Config.Env = slices.Clone(img.Config.Env)
	c.Config.ExposedPorts = maps.Clone(img.Config.ExposedPorts)
	c.Config.Volumes = maps.Clone(img.Config.Volumes)
	c.Config.Labels = maps.Clone(img.Config.Labels)
	c.Config.OnBuild = slices.Clip(img.Config.OnBuild)
	return &c
}

func (img *Image) setLabel(key, value string) {
	if img.Config.Labels == nil {
		img.Config.Labels = map[string]string{}
	}
	img.Config.Labels[key] = value
}

// shell returns the program that runs commands in shell form.
func (img *Image) shell() []string {
	switch {
	case len(img.Config.Shell) > 0:
		return img.Config.Shell
	case img.OS == "windows":
		return []string{"cmd", "/S", "/C"}
	default:
		return []string{"/bin/sh", "-c"}
	}
}

// withShell returns the arguments that run a command in shell form.
func (img *Image) withShell(args []string) []string {
	return append(slices.Clone(img.shell()), strings.Join(args, " "))
}

// commit appends to the history of the image. The time stays open unless the build has one: it
// is that of the layer.
func (s *stage) commit(epoch *time.Time, createdBy string, layer bool) {
	s.image.History = append(s.image.History, ocispec.History{
		Created:    epoch,
		CreatedBy:  createdBy,
		Comment:    historyComment,
		EmptyLayer: !layer,
	})
}
