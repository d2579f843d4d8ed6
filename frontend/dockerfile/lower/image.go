package lower

import (
	"maps"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/giturl"
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
	base := img.Platform
	img.Platform = imagePlatform(p)
	// A platform that is asked for rarely says these; an image for Windows does not run without.
	if img.OSVersion == "" {
		img.OSVersion = base.OSVersion
	}
	if len(img.OSFeatures) == 0 {
		img.OSFeatures = base.OSFeatures
	}
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
	if img.OS == windows {
		return
	}
	for _, kv := range img.Config.Env {
		if strings.HasPrefix(kv, "PATH=") {
			return
		}
	}
	img.Config.Env = append(slices.Clip(img.Config.Env), "PATH="+defaultPath)
}

// clone returns a copy that may be changed, except for its history, which is that of the base, and
// its environment.
func (img *Image) clone() *Image {
	c := *img
	c.Config.ExposedPorts = maps.Clone(img.Config.ExposedPorts)
	c.Config.Volumes = maps.Clone(img.Config.Volumes)
	c.Config.Labels = maps.Clone(img.Config.Labels)
	c.Config.OnBuild = slices.Clip(img.Config.OnBuild)
	return &c
}

// size is about how much memory a copy takes, in bytes.
func (img *Image) size() int {
	c := img.Config
	return 1024 + 2*entrySize*(len(c.ExposedPorts)+len(c.Volumes)+len(c.Labels)+len(c.OnBuild))
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
	case img.OS == windows:
		return []string{"cmd", "/S", "/C"}
	default:
		return []string{"/bin/sh", "-c"}
	}
}

// withShell returns the arguments that run a command in shell form.
func (img *Image) withShell(args []string) []string {
	return append(slices.Clone(img.shell()), strings.Join(args, " "))
}

// past is the history that instructions make, the last one first. Stages that continue one another
// share it.
type past struct {
	last   ocispec.History
	before *past
}

// commit appends to the history. The time stays open unless the build has one: it is that of the
// layer. Credentials in urls are for servers, and not for those who have the image.
func (s *stage) commit(epoch *time.Time, createdBy string, layer bool) {
	s.history = &past{before: s.history, last: ocispec.History{
		Created:    epoch,
		CreatedBy:  giturl.Redact(createdBy),
		Comment:    historyComment,
		EmptyLayer: !layer,
	}}
}

// list returns the history in order.
func (p *past) list() []ocispec.History {
	var out []ocispec.History
	for ; p != nil; p = p.before {
		out = append(out, p.last)
	}
	slices.Reverse(out)
	return out
}
