package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
)

const (
	// historyComment marks history that was not written by a frontend.
	historyComment = "buildkit.exporter.image.v0"
	defaultPath    = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// errUnaccounted is a warning: the frontend tells of more layers than there are.
var errUnaccounted = errors.New("invalid image config with unaccounted layers")

// makeConfig returns the config of an image with the layers. raw is that of the frontend, empty
// for a default one; base is that of the image it was built upon, if any. The error
// errUnaccounted comes with a config.
func makeConfig(raw, base []byte, platform ocispec.Platform, layers []cache.Layer, epoch *time.Time) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if len(raw) == 0 {
		var err error
		if raw, err = defaultConfig(platform); err != nil {
			return nil, err
		}
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("failed to parse image config for export: %w", err)
	}
	if fields == nil {
		return nil, errors.New("invalid null image config for export")
	}
	var cfg struct {
		OS           string            `json:"os"`
		Architecture string            `json:"architecture"`
		Created      *time.Time        `json:"created"`
		History      []ocispec.History `json:"history"`
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, fmt.Errorf("failed to parse image config for export: %w", err)
	}
	if cfg.OS == "" {
		return nil, errors.New("invalid image config for export: missing os")
	}
	if cfg.Architecture == "" {
		return nil, errors.New("invalid image config for export: missing architecture")
	}
	history, warning := normalizeHistory(cfg.History, layers)
	if epoch != nil {
		kept, err := commonHistory(history, base)
		if err != nil {
			return nil, err
		}
		clampHistory(history[kept:], *epoch)
	}
	created := cfg.Created
	if created == nil && len(history) > 0 {
		created = history[len(history)-1].Created
	}
	if created != nil && epoch != nil && created.After(*epoch) {
		created = epoch
	}
	set := func(key string, v any) (err error) {
		fields[key], err = json.Marshal(v)
		return err
	}
	delete(fields, "moby.buildkit.cache.v0")
	err := errors.Join(set("rootfs", rootFS(layers)), set("history", history))
	if created != nil {
		err = errors.Join(err, set("created", created))
	}
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return data, warning
}

// defaultConfig is the config of a result that has none.
func defaultConfig(platform ocispec.Platform) ([]byte, error) {
	img := ocispec.Image{Platform: platform}
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	if platform.OS != "windows" {
		img.Config.Env = []string{"PATH=" + defaultPath}
	}
	return json.Marshal(img)
}

func rootFS(layers []cache.Layer) ocispec.RootFS {
	fs := ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		fs.DiffIDs = append(fs.DiffIDs, l.DiffID)
	}
	return fs
}

// normalizeHistory makes the history tell of exactly the layers that there are, and of a time for
// each entry where one can be had.
func normalizeHistory(given []ocispec.History, layers []cache.Layer) ([]ocispec.History, error) {
	history := append([]ocispec.History{}, given...)
	told := 0
	for _, h := range history {
		if !h.EmptyLayer {
			told++
		}
	}
	var warning error
	if told > len(layers) {
		warning = errUnaccounted
		for i := 0; told > len(layers); i++ {
			if !history[i].EmptyLayer {
				history[i].EmptyLayer = true
				told--
			}
		}
	}
	for _, l := range layers[told:] {
		history = append(history, ocispec.History{
			Created: timeOf(l), CreatedBy: l.Description, Comment: historyComment,
		})
	}
	fillTimes(history, layers)
	return history, warning
}

// fillTimes gives a time to entries that have none: to a layer its own, to the others that of the
// new layer before, or of the first new layer, or of the entry before if no layer is new.
func fillTimes(history []ocispec.History, layers []cache.Layer) {
	assigned := make([]bool, len(history))
	var latest *time.Time
	layer := 0
	for i := range history {
		h := &history[i]
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created, assigned[i] = timeOf(layers[layer]), true
				if latest == nil {
					latest = h.Created
				}
			}
			layer++
		}
	}
	newLayers := latest != nil
	for i := range history {
		h := &history[i]
		switch {
		case h.Created == nil:
			h.Created = latest
		case assigned[i], !newLayers:
			latest = h.Created
		}
	}
}

func timeOf(l cache.Layer) *time.Time {
	if l.CreatedAt.IsZero() {
		return nil
	}
	t := l.CreatedAt.UTC()
	return &t
}

// commonHistory returns how many entries at the start are those of the base image.
func commonHistory(history []ocispec.History, base []byte) (int, error) {
	if len(base) == 0 {
		return 0, nil
	}
	var img struct {
		History []ocispec.History `json:"history"`
	}
	if err := json.Unmarshal(base, &img); err != nil {
		return 0, fmt.Errorf("failed to parse config of the base image: %w", err)
	}
	n := 0
	for n < len(history) && n < len(img.History) && reflect.DeepEqual(history[n], img.History[n]) {
		n++
	}
	return n, nil
}

// clampHistory lets no entry be later than the epoch.
func clampHistory(history []ocispec.History, epoch time.Time) {
	for i := range history {
		if c := history[i].Created; c == nil || c.After(epoch) {
			history[i].Created = &epoch
		}
	}
}
