package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/session"
	sessioncontent "github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/exporter"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/policy"
)

const (
	// statusGrace is how long progress may stay silent after a build has ended before it is cut.
	statusGrace = 5 * time.Second
	// failureGrace is how long a daemon has to end a build whose frontend or session has failed
	// on this side, and to say so in its own words.
	failureGrace = 3 * time.Second
)

// Solve builds a definition or, if def is nil or empty, the frontend of opt.
func (c *Client) Solve(ctx context.Context, def *pb.Definition, opt SolveOpt) (*SolveResponse, error) {
	switch empty := len(def.GetDef()) == 0; {
	case opt.Frontend == "" && empty:
		return nil, errors.New("invalid empty definition")
	case opt.Frontend != "" && !empty:
		return nil, fmt.Errorf("invalid definition for frontend %s", opt.Frontend)
	}
	b, err := c.newBuild(opt)
	if err != nil {
		return nil, err
	}
	b.req.Definition, b.req.Frontend = def, opt.Frontend
	return b.run(ctx, nil)
}

// Build runs a frontend on this side and exports its result. The frontend is given the options of
// opt; opt.Frontend is not used. Product names the program in error texts of daemons.
func (c *Client) Build(ctx context.Context, opt SolveOpt, product string, frontend gateway.BuildFunc) (*SolveResponse, error) {
	b, err := c.newBuild(opt)
	if err != nil {
		return nil, err
	}
	return b.run(ctx, func(ctx context.Context) error {
		conn, err := gateway.Connect(ctx, gateway.BridgeOf(c.conn, b.req.Ref), gateway.Config{
			Opts:      b.req.FrontendAttrs,
			SessionID: b.req.Session,
			Product:   product,
		})
		if err != nil {
			return err
		}
		return conn.Run(ctx, frontend)
	})
}

// build is one build on its way.
type build struct {
	client  *Client
	opt     SolveOpt
	req     *controlpb.SolveRequest
	exports *exportPlan
}

// newBuild checks opt. It changes nothing.
func (c *Client) newBuild(opt SolveOpt) (*build, error) {
	opt.Exports = layoutLast(opt.Exports)
	exports, err := planExports(opt.Exports)
	if err != nil {
		return nil, err
	}
	if err := checkCaches(opt.CacheExports, opt.CacheImports); err != nil {
		return nil, err
	}
	if opt.SharedSession != nil && (len(opt.LocalMounts)+len(opt.OCIStores)+len(exports.outputs)+len(opt.Session) > 0 ||
		exports.layout != "" || opt.SharedKey != "" || opt.CheckSource != nil || opt.ChooseExports != nil) {
		return nil, errors.New("a shared session must hold all that the build needs")
	}
	if opt.CheckSource != nil && opt.SourcePolicySession != "" {
		return nil, errors.New("only one of CheckSource and SourcePolicySession can decide on sources")
	}
	b := &build{client: c, opt: opt, exports: exports}
	attrs, err := frontendAttrs(opt)
	if err != nil {
		return nil, err
	}
	b.req = &controlpb.SolveRequest{
		Ref:            opt.Ref,
		FrontendAttrs:  attrs,
		FrontendInputs: opt.FrontendInputs,
		Exporters:      encodeExports(opt.Exports),
		Cache: &controlpb.CacheOptions{
			Exports: encodeCaches(opt.CacheExports),
			Imports: encodeCaches(opt.CacheImports),
		},
		Entitlements:          opt.AllowedEntitlements,
		Internal:              opt.Internal,
		SourcePolicy:          opt.SourcePolicy,
		SourcePolicySession:   opt.SourcePolicySession,
		EnableSessionExporter: opt.SessionExporter || opt.ChooseExports != nil,
		CompatibilityVersion:  opt.CompatibilityVersion,
		ProxyNetwork:          opt.ProxyNetwork,
	}
	if b.req.Ref == "" {
		b.req.Ref = NewRef()
	}
	// Daemons of before there could be several exporters read the first one from here.
	if len(b.req.Exporters) > 0 {
		first := b.req.Exporters[0]
		b.req.ExporterDeprecated, b.req.ExporterAttrsDeprecated = first.Type, first.Attrs
	}
	return b, nil
}

// NewRef returns a new id of a build.
func NewRef() string {
	const length = 25 // as all clients make them
	return strings.ToLower(rand.Text()[:length])
}

func frontendAttrs(opt SolveOpt) (map[string]string, error) {
	attrs := maps.Clone(opt.FrontendAttrs)
	if attrs == nil {
		attrs = map[string]string{}
	}
	imports, err := cacheImportsAttr(opt.CacheImports)
	if err != nil {
		return nil, err
	}
	if imports != "" {
		attrs[cacheImportsOpt] = imports
	}
	return attrs, nil
}

func newSession(opt SolveOpt, exports *exportPlan) (*session.Session, error) {
	s, err := session.New(opt.SharedKey)
	if err != nil {
		return nil, err
	}
	if len(opt.LocalMounts) > 0 {
		s.Allow(filesync.NewProvider(opt.LocalMounts))
	}
	target := filesync.NewTarget(exports.outputs)
	if len(exports.outputs) > 0 || opt.ChooseExports != nil {
		s.Allow(target)
	}
	stores, err := contentStores(opt, exports)
	if err != nil {
		return nil, err
	}
	provider := sessioncontent.NewProvider(stores)
	if len(stores) > 0 || opt.ChooseExports != nil {
		s.Allow(provider)
	}
	if opt.ChooseExports != nil {
		s.Allow(exporter.NewProvider(&lateExports{
			choose: opt.ChooseExports, target: target, stores: provider, requested: exports, first: len(opt.Exports),
		}))
	}
	if opt.CheckSource != nil {
		s.Allow(policy.NewProvider(opt.CheckSource))
	}
	for _, a := range opt.Session {
		s.Allow(a)
	}
	return s, nil
}

// Ids by which the session knows content stores.
const (
	ociStorePrefix = "oci:"
	exportStore    = "export"
)

func contentStores(opt SolveOpt, exports *exportPlan) (map[string]content.Store, error) {
	stores := map[string]content.Store{}
	for id, store := range opt.OCIStores {
		stores[ociStorePrefix+id] = store
	}
	if exports.layout != "" {
		store, err := local.NewStore(exports.layout)
		if err != nil {
			return nil, err
		}
		stores[exportStore] = store
	}
	return stores, nil
}

// run asks for the build and serves it until it has ended. The session, the request, its
// progress and the frontend, which may be nil, go side by side.
func (b *build) run(ctx context.Context, frontend func(context.Context) error) (*SolveResponse, error) {
	// A daemon that is not there is noticed before anything is changed on this side.
	if _, err := b.client.ListWorkers(ctx); err != nil {
		return nil, err
	}
	if err := b.exports.makeDirs(); err != nil {
		return nil, err
	}
	sess := b.opt.SharedSession
	if sess == nil {
		var err error
		if sess, err = newSession(b.opt, b.exports); err != nil {
			return nil, err
		}
		defer sess.Close()
	}
	b.req.Session = sess.ID()
	if b.opt.CheckSource != nil {
		b.req.SourcePolicySession = sess.ID()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var side sync.WaitGroup
	if sess != b.opt.SharedSession {
		side.Go(func() {
			if err := sess.Run(ctx, b.client.dial); err != nil {
				giveUp(ctx, cancel, err)
			}
		})
	}
	if frontend != nil {
		side.Go(func() {
			if err := frontend(ctx); err != nil {
				giveUp(ctx, cancel, err)
			}
		})
	}
	ended := make(chan struct{})
	if b.opt.Progress != nil {
		side.Go(func() { b.follow(ctx, ended) })
	}
	resp, err := b.client.control.Solve(ctx, b.req)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	close(ended)
	cancel(errBuildEnded)
	side.Wait()
	if err != nil {
		return nil, callError("failed to solve", err)
	}
	if err := b.exports.finish(resp.GetExporterResponse()); err != nil {
		return nil, err
	}
	return &SolveResponse{Ref: b.req.Ref, ExporterResponse: resp.GetExporterResponse()}, nil
}

var errBuildEnded = errors.New("the build has ended")

// giveUp ends the build with err unless the daemon ends it first.
func giveUp(ctx context.Context, cancel context.CancelCauseFunc, err error) {
	timer := time.NewTimer(failureGrace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		cancel(err)
	}
}

// follow passes progress on until there is no more, or until it has been silent for a while after
// the build has ended. Its errors are not those of the build.
func (b *build) follow(ctx context.Context, ended <-chan struct{}) {
	// Progress of a build that was cancelled is still of interest.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	heard := make(chan struct{}, 1)
	go cutWhenSilent(ctx, cancel, ended, heard)
	_ = b.client.Status(ctx, b.req.Ref, event.SinkFunc(func(batch event.Batch) {
		b.opt.Progress.Emit(batch)
		select {
		case heard <- struct{}{}:
		default:
		}
	}))
}

// cutWhenSilent calls cut once the build has ended and nothing was heard for statusGrace.
func cutWhenSilent(ctx context.Context, cut func(), ended, heard <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-ended:
	}
	timer := time.NewTimer(statusGrace)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
			timer.Reset(statusGrace)
		case <-timer.C:
			cut()
			return
		}
	}
}
