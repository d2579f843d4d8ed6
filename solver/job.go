package solver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/entitlement"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/history"
	"github.com/openbuildkit/buildkit/solver/policy"
	"github.com/openbuildkit/buildkit/solver/provenance"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/usage"
)

// job is one build from its request to its end.
type job struct {
	solver   *Solver
	req      Request
	sessions session.Group
	feed     *feed.Feed
	// recorded is nil for internal builds.
	recorded *history.Build
	sched    *schedule.Job
	grants   entitlement.Grants
	policies *policy.Set
	outputs  []exporter.Instance
	// exportWarnings are shown with the first of the outputs.
	exportWarnings []string

	ctx    context.Context //nolint:containedctx // ends with the job; its calls have contexts of their own
	cancel context.CancelCauseFunc

	containers containers
	failures   failures
	warnings   warnings

	memo source.Memo
	// resolves counts what frontends have had resolved.
	resolves atomic.Int64
	trace    trace.TraceID
	started  time.Time
	// machine records what the machine does while the build runs.
	machine usage.System
	// asked is what the client asked for; provenance says how it wants that told, nil for not.
	asked      *asked
	provenance *provenance.Options
	// made tells how the result was made, once it is known.
	made map[string]*origin
	// sbom is how the result is to be scanned, nil for not.
	sbom *sbomRequest
	mu   sync.Mutex
	// frontend is the first that was asked for, frontendOpts what it was told.
	frontend     string
	frontendOpts map[string]string
	// metadata is that of the result, answers those of the exporters.
	metadata map[string][]byte
	answers  []map[string]string
	// definitions tells which request made the definition with a root.
	definitions map[digest.Digest]*asked
	// sets are the source policies that definitions were loaded under, by their ids.
	sets map[string]*policy.Set
	// refused are the remote caches that were asked for and are not there.
	refused []string

	// ended is guarded by the solver's lock.
	ended bool
}

// newJob makes the job of a request and makes it known, so that listeners and the gateway calls of
// the client find it.
func (s *Solver) newJob(ctx context.Context, req Request) (*job, error) {
	j := &job{solver: s, req: req, feed: feed.New(s.cfg.History.TapeDir()), started: time.Now()}
	j.asked = &asked{frontend: req.Frontend, opts: req.FrontendOpt, inputs: req.FrontendInputs}
	var ids session.IDs
	if req.Session != "" {
		ids = session.IDs{req.Session}
	}
	j.sessions = ids
	if req.Trace.IsValid() {
		// What is asked of the client is part of its trace.
		ctx = trace.ContextWithRemoteSpanContext(ctx, req.Trace)
	}
	j.ctx, j.cancel = context.WithCancelCause(ctx)
	if err := s.register(j); err != nil {
		j.cancel(err)
		return nil, err
	}
	j.begin()
	j.sched = s.scheduler.NewJob(ids, j.feed, j)
	return j, nil
}

// accept reads what the request asks for, so that what is wrong with it is told before anything
// is done.
func (j *job) accept() error {
	var err error
	if j.grants, err = entitlement.Grant(j.solver.cfg.Entitlements, j.req.Entitlements); err != nil {
		return err
	}
	if j.policies, err = j.newPolicies(); err != nil {
		return err
	}
	if err := j.acceptAttestations(); err != nil {
		return status.WithCode(err, codes.InvalidArgument)
	}
	for _, e := range j.req.Exporters {
		if err := j.addOutput(e); err != nil {
			return err
		}
	}
	return nil
}

// addOutput adds an exporter after those that there are.
func (j *job) addOutput(e Exporter) error {
	inst, err := j.solver.cfg.Exporters.Resolve(e.Type, exporterAttrs(j.req, e.Attrs), cmp.Or(j.req.Compatibility, compat.Current))
	if err != nil {
		return err
	}
	j.outputs = append(j.outputs, inst)
	return nil
}

// exporterAttrs returns the attributes with the time that the user set for the whole build.
func exporterAttrs(req Request, attrs map[string]string) map[string]string {
	const key = "source-date-epoch"
	epoch, ok := req.FrontendOpt["build-arg:SOURCE_DATE_EPOCH"]
	if _, set := attrs[key]; set || !ok || !isInteger(epoch) {
		return attrs
	}
	out := map[string]string{key: epoch}
	for k, v := range attrs {
		out[k] = v
	}
	return out
}

func isInteger(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// run builds, exports, releases, and records what became of the build.
func (j *job) run() (*Response, error) {
	defer j.solver.retire(j)
	resp, err := j.execute()
	j.feed.Close()
	j.record(resp, err)
	return resp, err
}

// execute builds, exports and releases. A panic ends this build only.
func (j *job) execute() (resp *Response, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, status.WithStack(fmt.Errorf("build panicked: %v\n%s", r, debug.Stack()))
		}
	}()
	defer j.sched.Close()
	defer j.cancel(nil)
	if err := j.accept(); err != nil {
		return nil, err
	}
	stop := j.watchSession()
	defer stop()
	resp, err = j.build(j.ctx)
	err = j.solver.nameFullDisk(err)
	j.solver.flush(j.ctx)
	if err != nil && j.ctx.Err() != nil {
		// Why the build was ended says more than what failed because of it.
		err = j.causeOf(err)
	}
	return resp, err
}

func (j *job) causeOf(err error) error {
	cause := context.Cause(j.ctx)
	if cause == context.Canceled { //nolint:errorlint // the bare sentinel says nothing by itself
		return err
	}
	return cause
}

// watchSession ends the build when the session of its client does.
func (j *job) watchSession() (stop func()) {
	if j.req.Session == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(j.ctx)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		c, err := j.solver.cfg.Sessions.Get(ctx, j.req.Session)
		if err != nil {
			// A build that needs no session does not miss it; others say so themselves.
			return
		}
		select {
		case <-c.Done():
			j.cancel(c.Err())
		case <-ctx.Done():
		}
	}()
	return func() {
		cancel()
		wg.Wait()
	}
}

// build produces the result and exports it.
func (j *job) build(ctx context.Context) (*Response, error) {
	for _, im := range j.req.CacheImports {
		j.refuseImport(im)
	}
	res, err := j.produce(ctx)
	if err != nil {
		return nil, err
	}
	if err := res.EachRef(func(_ string, ref gateway.Reference) error { return ref.Evaluate(ctx) }); err != nil {
		return nil, err
	}
	if err := j.checkAttestations(res); err != nil {
		return nil, err
	}
	if err := j.scan(ctx, res); err != nil {
		return nil, err
	}
	if err := evaluateAttestations(ctx, res); err != nil {
		return nil, err
	}
	if err := j.findExporters(ctx, res); err != nil {
		return nil, err
	}
	if err := j.warnOfPlatforms(res); err != nil {
		return nil, err
	}
	j.mu.Lock()
	j.metadata = res.Metadata
	j.mu.Unlock()
	var origins map[string]*origin
	if j.provenance != nil || j.recorded != nil {
		// A result whose trees have no platforms is fine as long as nothing is made of it.
		if origins, err = j.origins(res); err != nil && j.provenance != nil {
			return nil, err
		}
		j.mu.Lock()
		j.made = origins
		j.mu.Unlock()
	}
	if err := j.checkMaterials(origins); err != nil {
		return nil, err
	}
	response, err := j.export(ctx, res, origins)
	if err != nil {
		return nil, err
	}
	for k, v := range res.Metadata {
		if strings.HasPrefix(k, "frontend.") {
			response[k] = string(v)
		}
	}
	if err := j.finalizeExport(ctx, response); err != nil {
		return nil, err
	}
	return &Response{Exporter: response}, nil
}

// produce returns the result of the definition, the frontend or the client's own frontend.
func (j *job) produce(ctx context.Context) (*gateway.Result, error) {
	// What a frontend leaves running serves nobody any more.
	defer func() {
		if err := j.containers.close(); err != nil {
			log.G(ctx).WithError(err).Warn("what a frontend left running has left something behind")
		}
	}()
	b := &bridge{job: j, asked: j.asked, opts: j.req.FrontendOpt, inputs: j.req.FrontendInputs}
	if j.req.Definition != nil || j.req.Frontend != "" {
		return b.Solve(ctx, gateway.SolveRequest{
			Definition:     j.req.Definition,
			Frontend:       j.req.Frontend,
			FrontendOpt:    j.req.FrontendOpt,
			FrontendInputs: j.req.FrontendInputs,
		})
	}
	if j.req.Build == nil {
		return &gateway.Result{}, nil
	}
	res, err := j.req.Build(ctx, b)
	if res == nil {
		res = &gateway.Result{}
	}
	return res, err
}

// admit checks that the vertices of a graph ask for nothing that the build was not granted. It is
// done for each job before it joins a vertex that others may be working on.
func (j *job) admit(g *graph.Graph) error {
	for _, v := range g.Vertices {
		if err := j.CheckOp(v.Op); err != nil {
			return fmt.Errorf("failed to load LLB: %w", err)
		}
	}
	return nil
}

// Memo holds what the build has resolved.
func (j *job) Memo() *source.Memo { return &j.memo }

// TraceParent returns the W3C traceparent of what belongs to a step of the build.
func (j *job) TraceParent(vertex digest.Digest) string {
	return fmt.Sprintf("00-%s-%s-01", j.trace, history.SpanID(j.req.Ref, vertex))
}

// refuseImport tells that a remote cache is not looked into: there is none of its type. A build
// goes on without it.
func (j *job) refuseImport(im RemoteCache) {
	name := im.Attrs["ref"]
	if im.Type != "registry" || name == "" {
		name = im.Type
	}
	name = "importing cache manifest from " + name
	j.mu.Lock()
	told := slices.Contains(j.refused, name)
	j.refused = append(j.refused, name)
	j.mu.Unlock()
	if !told {
		_ = event.NewScope(j.feed, digest.FromString(name)).Start(name, nil)(errors.New("unknown cache importer: " + im.Type))
	}
}

// noteFrontend remembers what the first frontend that was asked for was and what it was told.
func (j *job) noteFrontend(name string, opts map[string]string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.frontend == "" {
		j.frontend, j.frontendOpts = name, opts
	}
}
