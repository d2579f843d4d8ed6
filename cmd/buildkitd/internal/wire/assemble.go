package wire

import (
	"context"
	"os"

	"github.com/containerd/log"
	"google.golang.org/grpc"

	workerspb "github.com/openbuildkit/buildkit/api/workers"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/control"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/exporter/local"
	"github.com/openbuildkit/buildkit/exporter/oci"
	"github.com/openbuildkit/buildkit/exporter/tar"
	"github.com/openbuildkit/buildkit/frontend/gateway"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver"
	"github.com/openbuildkit/buildkit/solver/history"
	"github.com/openbuildkit/buildkit/solver/key"
	"github.com/openbuildkit/buildkit/solver/op"
)

// assemble makes all parts, the lowest first. It starts nothing.
func (d *daemon) assemble(ctx context.Context, cfg *config.Config, st *state) error {
	env, err := readProvenanceEnv(cfg.ProvenanceEnvDir)
	if err != nil {
		return err
	}
	spare := &reserve{path: st.sub("reserve")}
	if spare.release() {
		log.G(ctx).Errorf("the disk of %s is full: no space left on device for builds; \"buildctl prune\" can make room", st.dir)
	}
	sessions := session.NewManager()
	registries := newRegistry(cfg, sessions)
	d.onClose(func() error { registries.CloseIdle(); return nil })
	w, err := d.newWorker(ctx, cfg, st, sessions, registries)
	if err != nil {
		return err
	}
	t := newTraces(ctx, cfg.OTEL)
	d.onClose(t.close)
	builds := history.Open(ctx, history.Config{
		Dir:        st.sub("history"),
		MaxAge:     cfg.History.MaxAge.Duration,
		MaxEntries: int(*cfg.History.MaxEntries),
		Spans:      t.spans,
		MakeRoom:   spare.makeRoom,
	})
	d.onClose(builds.Close)
	t.builds = builds
	d.background = append(d.background, builds.Run, t.run)
	w.TraceSocket = t.path()
	keys, err := key.Open(st.sub("keys.db"))
	if err != nil {
		return err
	}
	d.keys = keys
	d.onClose(keys.Close)
	// A key without its tree is a miss: it need not be kept.
	w.Cache.SetOnDrop(keys.DropResults)

	policies := cfg.Workers.OCI.Rules(diskSize(st.dir))
	storage := reserving{Storage: w.Cache, reserve: spare}
	collector := newCollector(storage, policies)
	d.background = append(d.background, collector.run)

	images := &image.Store{Content: w.Cache.Content(), Leases: w.Cache.Leases(), Blobs: w.Cache}
	if err := images.Recover(ctx); err != nil {
		return err
	}
	s := solver.New(solver.Config{
		Worker:       w,
		Sessions:     sessions,
		Keys:         keys,
		Frontends:    newFrontends(cfg.Frontends),
		Exporters:    newExporters(images, sessions, registries),
		Entitlements: entitlements(cfg),
		LogLimits:    op.LogLimitsFromEnv(os.Getenv),
		History:      builds,

		ProvenanceEnv:     env,
		DockerfileVersion: dockerfileVersion(cfg.Frontends),
		Version:           version.Version,
	})
	d.solver = s
	d.durations = newDurations()

	v := &workerspb.BuildkitVersion{
		Package: version.Package, Version: version.Version, Revision: version.Revision,
		DockerfileVersion: dockerfileVersion(cfg.Frontends),
	}
	var options []grpc.ServerOption
	if cfg.GRPC.DebugAddress != "" {
		options = requestTraces()
	}
	d.server = control.NewServer(control.New(control.Config{
		Solver:   measuring{Solver: collecting{Solver: s, collector: collector}, durations: d.durations},
		Builds:   gateway.NewBuilds(),
		History:  builds,
		Sessions: sessions,
		Storage:  storage,
		Workers: func() []*workerspb.WorkerRecord {
			return []*workerspb.WorkerRecord{control.WorkerRecord(w, policies, v)}
		},
		Traces:  t,
		Version: v,
	}), options...)
	spare.keep()
	// What is left to be written is written when the stores are closed.
	d.onClose(func() error { spare.release(); return nil })
	return nil
}

func newExporters(images *image.Store, sessions *session.Manager, registries *registry.Client) exporter.Registry {
	return exporter.Registry{
		image.Type:         image.New(images, registries),
		local.Type:         local.New(sessions),
		tar.Type:           tar.New(sessions),
		string(oci.OCI):    oci.New(oci.OCI, images, sessions),
		string(oci.Docker): oci.New(oci.Docker, images, sessions),
	}
}
