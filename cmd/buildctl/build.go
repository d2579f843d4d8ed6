package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/progress"
)

// product names this program in error texts of daemons.
const product = "buildkit"

const (
	requestIDOpt    = "requestid"
	frontendCapsOpt = "frontend.caps"
	subrequestsCap  = "moby.buildkit.frontend.subrequests"
	noCacheOpt      = "no-cache"
	progressEnv     = "BUILDKIT_PROGRESS"
)

// buildFlags are the flags of build as given.
type buildFlags struct {
	outputs      []string
	progress     string
	trace        string
	locals       []string
	ociLayouts   []string
	frontend     string
	opts         []string
	noCache      bool
	exportCaches []string
	importCaches []string
	secrets      []string
	allow        []string
	ssh          []string
	metadataFile string
	policyFile   string
	proxyNetwork bool
	refFile      string
	authTLS      []string
	cacheMetrics string
}

func newBuildCommand(a *app) *cobra.Command {
	var b buildFlags
	cmd := &cobra.Command{
		Use:     "build",
		Aliases: []string{"b"},
		Short:   "build",
		Example: "  buildctl build --frontend dockerfile.v0 --opt target=foo --opt build-arg:foo=bar " +
			"--local context=. --local dockerfile=. --output type=image,name=docker.io/username/image,push=true",
		Args:        noArgs,
		Annotations: map[string]string{builds: "true"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return runBuild(cmd, a, b) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&b.outputs, "output", "o", nil, "Define exports for build result, e.g. --output type=image,name=docker.io/username/image,push=true")
	f.StringVar(&b.progress, "progress", "auto", "Set type of progress (auto, plain, tty, quiet, rawjson). Use plain to show container output")
	f.StringVar(&b.trace, "trace", "", "Path to trace file. Defaults to no tracing.")
	f.StringArrayVar(&b.locals, "local", nil, "Allow build access to the local directory")
	f.StringArrayVar(&b.ociLayouts, "oci-layout", nil, "Allow build access to the local OCI layout")
	f.StringVar(&b.frontend, "frontend", "", "Define frontend used for build")
	f.StringArrayVar(&b.opts, "opt", nil, "Define custom options for frontend, e.g. --opt target=foo --opt build-arg:foo=bar")
	f.BoolVar(&b.noCache, "no-cache", false, "Disable cache for all the vertices")
	f.StringArrayVar(&b.exportCaches, "export-cache", nil, "Export build cache, e.g. --export-cache type=registry,ref=example.com/foo/bar, or --export-cache type=local,dest=path/to/dir")
	f.StringArrayVar(&b.importCaches, "import-cache", nil, "Import build cache, e.g. --import-cache type=registry,ref=example.com/foo/bar, or --import-cache type=local,src=path/to/dir")
	f.StringArrayVar(&b.secrets, "secret", nil, "Secret value exposed to the build. Format id=secretname,src=filepath")
	f.StringArrayVar(&b.allow, "allow", nil, "Allow extra privileged entitlement, e.g. network.host, security.insecure, device")
	f.StringArrayVar(&b.ssh, "ssh", nil, "Allow forwarding SSH agent or a raw Unix socket to the builder. Format default|<id>[=<socket>[,raw=false]|<key>[,<key>]]")
	f.StringVar(&b.metadataFile, "metadata-file", "", "Output build metadata (e.g., image digest) to a file as JSON")
	f.StringVar(&b.policyFile, "source-policy-file", "", "Read source policy file from a JSON file")
	f.BoolVar(&b.proxyNetwork, "proxy-network", false, "Run build with proxy network enforcement")
	f.StringVar(&b.refFile, "ref-file", "", "Write build ref to a file")
	f.StringArrayVar(&b.authTLS, "registry-auth-tlscontext", nil, "Overwrite TLS configuration when authenticating with registries, e.g. --registry-auth-tlscontext host=https://myserver:2376,insecure=false,ca=/path/to/my/ca.crt,cert=/path/to/my/cert.crt,key=/path/to/my/key.crt")
	f.StringVar(&b.cacheMetrics, "debug-json-cache-metrics", "", "Where to output json cache metrics, use 'stdout' or 'stderr' for standard (error) output.")
	return cmd
}

// solveOpt turns flags into options of the client, with events as the sink of all that happens. The
// returned function frees what the options hold.
func (b *buildFlags) solveOpt(events event.Sink) (opt client.SolveOpt, release func(), err error) {
	opt = client.SolveOpt{Ref: client.NewRef(), Frontend: b.frontend, ProxyNetwork: b.proxyNetwork, Progress: events}
	if opt.FrontendAttrs, err = parseOpts(b.opts, os.LookupEnv); err != nil {
		return opt, nil, fmt.Errorf("invalid opt: %w", err)
	}
	if b.noCache && b.frontend != "" {
		opt.FrontendAttrs[noCacheOpt] = ""
	}
	if isSubrequest(opt.FrontendAttrs) {
		if _, ok := opt.FrontendAttrs[frontendCapsOpt]; !ok {
			opt.FrontendAttrs[frontendCapsOpt] = subrequestsCap
		}
	}
	if opt.Exports, err = parseOutputs(b.outputs, os.Stdout); err != nil {
		return opt, nil, err
	}
	if opt.CacheExports, err = parseExportCaches(b.exportCaches, os.LookupEnv); err != nil {
		return opt, nil, err
	}
	if opt.CacheImports, err = parseImportCaches(b.importCaches, os.LookupEnv); err != nil {
		return opt, nil, err
	}
	if opt.AllowedEntitlements, err = parseAllow(b.allow); err != nil {
		return opt, nil, err
	}
	if b.policyFile != "" {
		if opt.SourcePolicy, err = readSourcePolicy(b.policyFile); err != nil {
			return opt, nil, err
		}
	}
	if opt.OCIStores, err = parseOCILayouts(b.ociLayouts); err != nil {
		return opt, nil, fmt.Errorf("invalid oci-layout: %w", err)
	}
	if opt.Session, err = b.attachables(events); err != nil {
		return opt, nil, err
	}
	if opt.LocalMounts, release, err = openLocals(b.locals); err != nil {
		return opt, nil, fmt.Errorf("invalid local: %w", err)
	}
	opt.SharedKey = sharedKey()
	return opt, release, nil
}

func isSubrequest(attrs map[string]string) bool {
	_, ok := attrs[requestIDOpt]
	return ok
}

func runBuild(cmd *cobra.Command, a *app, b buildFlags) (err error) {
	ctx := cmd.Context()
	mode, err := progressMode(b.progress, os.Getenv)
	if err != nil {
		return err
	}
	events := &fanOut{}
	opt, release, err := b.solveOpt(events)
	if err != nil {
		return err
	}
	defer release()
	var def *pb.Definition
	if b.frontend == "" {
		if def, err = definitionFromStdin(os.Stdin, b.noCache); err != nil {
			return err
		}
	}
	c, err := a.client(ctx)
	if err != nil {
		return err
	}
	if b.refFile != "" {
		defer func() { err = errors.Join(err, writeFileAtomically(b.refFile, []byte(opt.Ref))) }()
	}
	display, err := progress.New(mode, os.Stderr, os.Getenv)
	if err != nil {
		return err
	}
	events.add(display)
	if b.trace != "" {
		trace, err := openTrace(b.trace)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, trace.Close()) }()
		events.add(trace)
	}
	var metrics *cacheMetrics
	if b.cacheMetrics != "" {
		if metrics, err = newCacheMetrics(b.cacheMetrics); err != nil {
			return err
		}
		events.add(metrics)
	}
	var resp *client.SolveResponse
	var result *gateway.Result
	var eg errgroup.Group
	// The display goes on until the build has ended, also after an interrupt.
	eg.Go(func() error { return display.Run(context.WithoutCancel(ctx)) })
	eg.Go(func() error {
		defer display.Close()
		var err error
		resp, err = c.Build(ctx, opt, product, func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			var err error
			result, err = g.Solve(ctx, gateway.SolveRequest{
				Definition:   def,
				Frontend:     opt.Frontend,
				FrontendOpt:  opt.FrontendAttrs,
				CacheImports: definitionImports(def, opt.CacheImports),
			})
			return result, err
		})
		return err
	})
	if err := eg.Wait(); err != nil {
		return err
	}
	if metrics != nil {
		defer func() { err = errors.Join(err, metrics.print()) }()
	}
	if isSubrequest(opt.FrontendAttrs) {
		if err := printSubrequest(cmd.OutOrStdout(), result.Metadata); err != nil {
			return err
		}
	}
	if b.metadataFile != "" && len(resp.ExporterResponse) > 0 {
		return writeMetadata(b.metadataFile, resp.ExporterResponse)
	}
	return nil
}

// definitionImports returns the caches for the solve of a definition. Frontends learn of them by
// their options.
func definitionImports(def *pb.Definition, caches []client.CacheOption) []gateway.CacheImport {
	if def == nil {
		return nil
	}
	out := make([]gateway.CacheImport, len(caches))
	for i, c := range caches {
		out[i] = gateway.CacheImport(c)
	}
	return out
}

// progressMode lets the environment decide if the flag does not.
func progressMode(flag string, getenv func(string) string) (progress.Mode, error) {
	if env := getenv(progressEnv); flag == string(progress.Auto) && env != "" {
		flag = env
	}
	return progress.ParseMode(flag)
}

// fanOut is a sink that passes records on, one batch at a time.
type fanOut struct {
	mu    sync.Mutex
	sinks []event.Sink
}

func (f *fanOut) add(s event.Sink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sinks = append(f.sinks, s)
}

// Emit passes a batch on.
func (f *fanOut) Emit(b event.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sinks {
		s.Emit(b)
	}
}

// definitionFromStdin reads a definition that is piped in.
func definitionFromStdin(in *os.File, noCache bool) (*pb.Definition, error) {
	if st, err := in.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
		return nil, errors.New("please specify --frontend or pipe LLB definition to stdin")
	}
	def, err := readDefinition(in)
	if err != nil {
		return nil, fmt.Errorf("failed to parse input: %w", err)
	}
	if len(def.Def) == 0 {
		return nil, errors.New("empty definition sent to build. Specify --frontend instead?")
	}
	if noCache {
		ignoreCache(def)
	}
	return def, nil
}

func ignoreCache(def *pb.Definition) {
	if def.Metadata == nil {
		def.Metadata = map[string]*pb.OpMetadata{}
	}
	for _, dt := range def.Def {
		dgst := digest.FromBytes(dt).String()
		if def.Metadata[dgst] == nil {
			def.Metadata[dgst] = &pb.OpMetadata{}
		}
		def.Metadata[dgst].IgnoreCache = true
	}
}

// printSubrequest prints the answer to a subrequest: the text made for people if there is one.
func printSubrequest(w io.Writer, meta map[string][]byte) error {
	if text, ok := meta["result.txt"]; ok {
		_, err := w.Write(text)
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		if !strings.HasPrefix(key, "result.") {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s\n%s\n", key, meta[key]); err != nil {
			return err
		}
	}
	return nil
}

// traceFile is a file with all events of a build as JSON.
type traceFile struct {
	*os.File
	json *progress.JSONWriter
	err  error
}

func openTrace(path string) (*traceFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	log.L.Infof("tracing logs to %s", path)
	return &traceFile{File: f, json: progress.NewJSONWriter(f)}, nil
}

// Emit writes a batch. Calls do not overlap.
func (t *traceFile) Emit(b event.Batch) {
	if t.err == nil {
		t.err = t.json.Write(b)
	}
}

func (t *traceFile) Close() error { return errors.Join(t.err, t.File.Close()) }
