// Package dockerfile is the Dockerfile frontend: it reads a Dockerfile, lowers it to LLB and has
// that solved.
//
// Build is a gateway.BuildFunc, so the frontend runs built into the daemon, on the client's side
// and as an image. This package is its only part that asks the daemon for anything: files of the
// client, configurations of images, solves. The packages below it are pure: parser (text to
// nodes), instruction (nodes to stages), shell (variables), lint (rules) and lower (stages to
// LLB). Mistakes of the user are returned with the lines of the Dockerfile, as status.SourceError.
package dockerfile

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/attestation"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// Version is that of the language of Dockerfiles which the frontend reads, in the numbers of
// docker/dockerfile images.
const Version = "1.26.0"

// Build builds the Dockerfile that c's options name, for every platform they ask for. Its language is
// that of the stable channel.
func Build(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	return run(ctx, c, false)
}

// BuildLabs is Build with the language of the labs channel: it has RUN --device, too.
func BuildLabs(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	return run(ctx, c, true)
}

func run(ctx context.Context, c gateway.Client, labs bool) (*gateway.Result, error) {
	opts, err := parseOptions(c.BuildOpts())
	if err != nil {
		return nil, err
	}
	opts.labs = labs
	if err := opts.checkCaps(); err != nil {
		return nil, err
	}
	b := &build{client: c, opts: opts}
	if err := b.openContext(ctx); err != nil {
		return nil, err
	}
	if b.file, err = b.loadFile(ctx); err != nil {
		return nil, err
	}
	res, err := b.run(ctx)
	if err != nil {
		return nil, b.file.withSources(err)
	}
	return res, nil
}

// build is one run of the frontend.
type build struct {
	client gateway.Client
	opts   *options
	file   *file
	// context and dockerfileTree replace the locals of the client if not nil.
	context, dockerfileTree *llb.State

	parsed     *parser.File
	dockerfile *instruction.Dockerfile
	lintConfig lint.Config
	ignore     func() (*ignoreFile, error)
	epochs     epochs
	// scanner is called if software bills of materials are asked for.
	scanner func() (*attestation.Scanner, error)
}

func (b *build) run(ctx context.Context) (*gateway.Result, error) {
	if res, done, err := b.forwardSyntax(ctx); done || err != nil {
		return res, err
	}
	b.ignore = b.loadIgnoreOnce(ctx)
	if b.opts.request == requestLint {
		return b.lint(ctx)
	}
	if err := b.parse(); err != nil {
		return nil, err
	}
	if b.opts.request != "" {
		return b.subrequest(ctx)
	}
	b.scanner = b.resolveScannerOnce(ctx)
	results, err := b.platforms(ctx)
	if err != nil {
		return nil, err
	}
	return b.combine(results)
}

func (b *build) parse() (err error) {
	if b.parsed, err = parser.Parse(b.file.data); err != nil {
		return err
	}
	if b.lintConfig, err = b.parseLintConfig(); err != nil {
		return err
	}
	b.dockerfile, err = instruction.Parse(b.parsed)
	return err
}

func (b *build) parseLintConfig() (lint.Config, error) {
	if b.opts.check != nil {
		return *b.opts.check, nil
	}
	d, ok := b.parsed.Directive(parser.DirectiveCheck)
	if !ok {
		return lint.Config{}, nil
	}
	c, err := lint.ParseConfig(d.Value)
	if err != nil {
		return c, parser.WithLocation(fmt.Errorf("failed to parse check options: %w", err), []parser.Range{d.Range})
	}
	return c, nil
}

// lintFile returns what is wrong with the Dockerfile.
func (b *build) lintFile(ctx context.Context) ([]lint.Warning, error) {
	if err := b.parse(); err != nil {
		return nil, err
	}
	linter := lint.New(b.lintConfig)
	if _, _, err := b.lower(ctx, b.opts.platforms[0], linter); err != nil {
		return nil, err
	}
	return linter.Warnings(), nil
}

// platformResult is the result for one platform.
type platformResult struct {
	platform ocispec.Platform
	ref      gateway.Reference
	config   []byte
	base     []byte
	epoch    *time.Time
	attested []gateway.Attestation
}

// platforms builds for all platforms at once. Warnings are those of the first one.
func (b *build) platforms(ctx context.Context) ([]platformResult, error) {
	results := make([]platformResult, len(b.opts.platforms))
	errs := make([]error, len(results))
	each(ctx, len(results), func(ctx context.Context, i int) error {
		var linter *lint.Linter
		if i == 0 {
			linter = lint.New(b.lintConfig)
		}
		results[i], errs[i] = b.platform(ctx, b.opts.platforms[i], linter)
		return errs[i]
	})
	if i := culprit(errs); i >= 0 {
		return nil, errs[i]
	}
	return results, nil
}

// platform builds for one platform.
func (b *build) platform(ctx context.Context, p ocispec.Platform, linter *lint.Linter) (platformResult, error) {
	res, _, err := b.lower(ctx, p, linter)
	b.warn(ctx, linter)
	if err == nil {
		err = linter.Err()
	}
	if err != nil {
		return platformResult{}, err
	}
	out := platformResult{platform: p, base: res.BaseConfig, epoch: res.Image.Created}
	if out.config, err = res.Config(); err != nil {
		return out, err
	}
	def, err := res.Marshal(ctx)
	if err != nil {
		return out, err
	}
	solved, err := b.client.Solve(ctx, gateway.SolveRequest{Definition: def, CacheImports: b.opts.cacheImports})
	if err != nil {
		return out, err
	}
	if out.ref, err = solved.SingleRef(); err != nil {
		return out, err
	}
	out.attested, err = b.scan(ctx, p, res, def)
	return out, err
}

// lower turns the Dockerfile into LLB, fetching what that takes.
func (b *build) lower(ctx context.Context, p ocispec.Platform, linter *lint.Linter) (*lower.Result, *lower.Build, error) {
	linter.CheckFile(b.parsed, b.dockerfile)
	var ignored *ignoreFile
	l, err := lower.New(b.lowerOptions(p, linter, func(paths []string) llb.State {
		return b.contextTree(paths, ignored)
	}))
	if err != nil {
		return nil, nil, err
	}
	t, err := b.epoch(ctx, l)
	if err != nil {
		return nil, nil, err
	}
	l.SetEpoch(t)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.answerAll(gctx, l) })
	g.Go(func() (err error) {
		ignored, err = b.ignore()
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	var matcher *patternmatcher.PatternMatcher
	if ignored != nil && len(ignored.patterns) > 0 {
		if matcher, err = patternmatcher.New(ignored.patterns); err != nil {
			return nil, nil, err
		}
	}
	res, err := l.Finish(matcher)
	return res, l, err
}

func (b *build) lowerOptions(p ocispec.Platform, linter *lint.Linter, tree func([]string) llb.State) lower.Options {
	o := b.opts
	return lower.Options{
		File:           b.parsed,
		Dockerfile:     b.dockerfile,
		Source:         b.file.source,
		Linter:         linter,
		Target:         o.target,
		AllStages:      o.request == requestLint && o.target == "",
		TargetPlatform: p,
		BuildPlatform:  o.buildPlatform,
		PlatformNames:  o.multiPlatform,
		BuildArgs:      o.buildArgs,
		Labels:         o.labels,
		NoCache:        o.noCache,
		NoCacheAll:     o.noCacheAll,
		Context:        tree,
		Named:          o.contexts,
		ResolveMode:    o.resolveMode,
		MergeOp:        o.mergeOp,
		Labs:           o.labs,
		Devices:        o.devices,
		Scan:           o.sbom != nil,
		CacheNamespace: o.buildArgs[argCacheNamespace],
		Process:        o.process,
	}
}

// combine puts the results of all platforms into one.
func (b *build) combine(results []platformResult) (*gateway.Result, error) {
	out := &gateway.Result{}
	for _, r := range results {
		suffix := ""
		id := platforms.Format(r.platform)
		out.AddAttestations(id, r.attested)
		if b.opts.multiPlatform {
			suffix = "/" + id
			out.AddRef(id, r.ref)
		} else {
			out.Ref = r.ref
		}
		out.SetMeta(keyConfig+suffix, r.config)
		if r.base != nil {
			out.SetMeta(keyBaseConfig+suffix, r.base)
		}
		if r.epoch != nil {
			out.SetMeta(keyEpoch+suffix, epochText(r.epoch))
		}
	}
	return out, setPlatforms(out, results)
}
