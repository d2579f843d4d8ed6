package client

import (
	"context"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	workerspb "github.com/openbuildkit/buildkit/api/workers"
)

// The JSON form of the types below is part of what buildctl prints.

// Info describes a daemon.
type Info struct {
	BuildkitVersion BuildkitVersion `json:"buildkitVersion"`
}

// BuildkitVersion says what a daemon was built from.
type BuildkitVersion struct {
	Package  string `json:"package"`
	Version  string `json:"version"`
	Revision string `json:"revision"`
	// DockerfileVersion is that of the built-in Dockerfile frontend; empty if there is none.
	DockerfileVersion string `json:"dockerfileVersion,omitempty"`
}

// WorkerInfo describes a worker of a daemon.
type WorkerInfo struct {
	ID              string             `json:"id"`
	Labels          map[string]string  `json:"labels"`
	Platforms       []ocispec.Platform `json:"platforms"`
	GCPolicy        []GCPolicy         `json:"gcPolicy"`
	BuildkitVersion BuildkitVersion    `json:"buildkitVersion"`
	CDIDevices      []CDIDevice        `json:"cdiDevices"`
}

// GCPolicy is a rule by which a worker frees storage. Spaces are bytes; 0 is no rule.
type GCPolicy struct {
	All           bool          `json:"all"`
	Filter        []string      `json:"filter"`
	KeepDuration  time.Duration `json:"keepDuration"`
	ReservedSpace int64         `json:"reservedSpace"`
	MaxUsedSpace  int64         `json:"maxUsedSpace"`
	MinFreeSpace  int64         `json:"minFreeSpace"`
}

// CDIDevice is a device that a worker can give to processes.
type CDIDevice struct {
	Name        string            `json:"name"`
	AutoAllow   bool              `json:"autoAllow"`
	Annotations map[string]string `json:"annotations"`
	OnDemand    bool              `json:"onDemand"`
}

// Info asks the daemon what it is.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	resp, err := c.control.Info(ctx, &controlpb.InfoRequest{})
	if err != nil {
		return nil, callError("failed to call info", err)
	}
	return &Info{BuildkitVersion: decodeVersion(resp.GetBuildkitVersion())}, nil
}

// ListWorkers lists the workers that match one of the filters, all without filters. The first one
// is the default.
func (c *Client) ListWorkers(ctx context.Context, filters ...string) ([]WorkerInfo, error) {
	resp, err := c.control.ListWorkers(ctx, &controlpb.ListWorkersRequest{Filter: filters})
	if err != nil {
		return nil, callError("failed to list workers", err)
	}
	var out []WorkerInfo
	for _, w := range resp.GetRecord() {
		out = append(out, decodeWorker(w))
	}
	return out, nil
}

func decodeVersion(v *workerspb.BuildkitVersion) BuildkitVersion {
	return BuildkitVersion{
		Package:           v.GetPackage(),
		Version:           v.GetVersion(),
		Revision:          v.GetRevision(),
		DockerfileVersion: v.GetDockerfileVersion(),
	}
}

func decodeWorker(w *workerspb.WorkerRecord) WorkerInfo {
	out := WorkerInfo{
		ID:              w.GetID(),
		Labels:          w.GetLabels(),
		Platforms:       []ocispec.Platform{},
		GCPolicy:        []GCPolicy{},
		BuildkitVersion: decodeVersion(w.GetBuildkitVersion()),
	}
	for _, p := range w.GetPlatforms() {
		out.Platforms = append(out.Platforms, p.Spec())
	}
	for _, p := range w.GetGCPolicy() {
		out.GCPolicy = append(out.GCPolicy, GCPolicy{
			All:           p.GetAll(),
			Filter:        p.GetFilters(),
			KeepDuration:  time.Duration(p.GetKeepDuration()),
			ReservedSpace: p.GetReservedSpace(),
			MaxUsedSpace:  p.GetMaxUsedSpace(),
			MinFreeSpace:  p.GetMinFreeSpace(),
		})
	}
	for _, d := range w.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, CDIDevice{
			Name:        d.GetName(),
			AutoAllow:   d.GetAutoAllow(),
			Annotations: d.GetAnnotations(),
			OnDemand:    d.GetOnDemand(),
		})
	}
	return out
}
