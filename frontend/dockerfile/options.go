package dockerfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/go-csvvalue"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/attestation"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// Options of the frontend, and the build arguments that are options.
const (
	optBuildArg       = "build-arg:"
	optLabel          = "label:"
	optContext        = "context:"
	optLocalSession   = "local-sessionid:"
	optSharedKey      = "sharedkey:localdir:"
	optTarget         = "target"
	optFilename       = "filename"
	optPlatform       = "platform"
	optMultiPlatform  = "multi-platform"
	optNoCache        = "no-cache"
	optCacheImports   = "cache-imports"
	optCacheFrom      = "cache-from"
	optResolveMode    = "image-resolve-mode"
	optAddHosts       = "add-hosts"
	optNetwork        = "force-network-mode"
	optHostname       = "hostname"
	optShmSize        = "shm-size"
	optUlimit         = "ulimit"
	optCgroupParent   = "cgroup-parent"
	optMainContext    = "context"
	optContextKey     = "contextkey"
	optContextSubdir  = "contextsubdir"
	optDockerfileKey  = "dockerfilekey"
	optRequest        = "requestid"
	optCaps           = "frontend.caps"
	optCmdline        = "cmdline"
	optSource         = "source"
	optCopyImage      = "override-copy-image"
	argSyntax         = "BUILDKIT_SYNTAX"
	argCheck          = "BUILDKIT_DOCKERFILE_CHECK"
	argCacheNamespace = "BUILDKIT_CACHE_MOUNT_NS"
	argMultiPlatform  = "BUILDKIT_MULTI_PLATFORM"
	argHostname       = "BUILDKIT_SANDBOX_HOSTNAME"
	argDisableFileOp  = "BUILDKIT_DISABLE_FILEOP"
	argKeepGitDir     = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
	defaultFilename   = "Dockerfile"
)

// options are the options of a build, decoded once.
type options struct {
	raw       map[string]string
	buildArgs map[string]string
	labels    map[string]string
	contexts  lower.NamedContexts
	// sessions are session ids by the name of the local that they hold for.
	sessions  map[string]string
	sessionID string

	target   string
	filename string
	// dockerfileLocal and contextLocal are the names of locals.
	dockerfileLocal, contextLocal string
	// context is a url; empty is the local or input.
	context, contextSubdir string
	keepGitDir             bool

	platforms     []ocispec.Platform
	buildPlatform ocispec.Platform
	multiPlatform bool

	noCache      []string
	noCacheAll   bool
	cacheImports []gateway.CacheImport
	resolveMode  llb.ResolveMode
	process      lower.Process
	// sbom asks for software bills of materials; nil for none.
	sbom *attestation.SBOM

	// check replaces what the Dockerfile says of checks, if not nil.
	check   *lint.Config
	request string
	cmdline string
	caps    []string
	// labs allows what is not yet in the stable language.
	labs bool
	// mergeOp, devices and warnings are what the daemon is able to do.
	mergeOp, devices, warnings bool
}

// parseOptions decodes what the build was asked for.
func parseOptions(bo gateway.BuildOpts) (*options, error) {
	raw := bo.Opts
	o := &options{
		raw:             raw,
		buildArgs:       withPrefix(raw, optBuildArg),
		labels:          withPrefix(raw, optLabel),
		contexts:        withPrefix(raw, optContext),
		sessions:        withPrefix(raw, optLocalSession),
		sessionID:       bo.SessionID,
		target:          raw[optTarget],
		filename:        or(raw[optFilename], defaultFilename),
		dockerfileLocal: or(raw[optDockerfileKey], "dockerfile"),
		contextSubdir:   raw[optContextSubdir],
		request:         raw[optRequest],
		cmdline:         raw[optCmdline],
		mergeOp:         bo.LLBCaps[pb.CapMergeOp],
		devices:         bo.LLBCaps[pb.CapExecMetaCDI],
		warnings:        bo.Caps["gateway.warnings"],
	}
	if raw[optCaps] != "" {
		o.caps = strings.Split(raw[optCaps], ",")
	}
	if raw[optCopyImage] != "" {
		return nil, fmt.Errorf("support for %q was removed in BuildKit 0.11", optCopyImage)
	}
	if v, err := strconv.ParseBool(o.buildArgs[argDisableFileOp]); err == nil && v {
		return nil, fmt.Errorf("support for %q was removed in BuildKit 0.11", argDisableFileOp)
	}
	key := or(raw[optContextKey], optMainContext)
	o.context = raw[key]
	o.contextLocal = or(raw[optContextKey], "context")
	for _, parse := range []func(gateway.BuildOpts) error{
		o.parsePlatforms, o.parseCache, o.parseProcess, o.parseMisc, o.parseCheck, o.parseSBOM,
	} {
		if err := parse(bo); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// withPrefix returns the options that begin with prefix, without it.
func withPrefix(raw map[string]string, prefix string) map[string]string {
	out := map[string]string{}
	for k, v := range raw {
		if name, ok := strings.CutPrefix(k, prefix); ok {
			out[name] = v
		}
	}
	return out
}

func (o *options) parsePlatforms(bo gateway.BuildOpts) error {
	o.buildPlatform = platforms.Normalize(platforms.DefaultSpec())
	if len(bo.Workers) > 0 && len(bo.Workers[0].Platforms) > 0 {
		o.buildPlatform = platforms.Normalize(bo.Workers[0].Platforms[0])
	}
	for text := range strings.SplitSeq(o.raw[optPlatform], ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		p, err := platforms.Parse(text)
		if err != nil {
			return fmt.Errorf("failed to parse target platform %s: %w", text, err)
		}
		o.platforms = append(o.platforms, platforms.Normalize(p))
	}
	o.multiPlatform = len(o.platforms) > 1
	if len(o.platforms) == 0 {
		o.platforms = []ocispec.Platform{o.buildPlatform}
	}
	value := or(o.raw[optMultiPlatform], o.buildArgs[argMultiPlatform])
	if value == "" {
		return nil
	}
	multi, err := strconv.ParseBool(value)
	if err != nil {
		return fmt.Errorf("invalid boolean value for %s: %s", optMultiPlatform, value)
	}
	if !multi && o.multiPlatform {
		return errors.New("conflicting config: returning multiple target platforms is not allowed")
	}
	o.multiPlatform = multi
	return nil
}

func (o *options) parseCache(gateway.BuildOpts) error {
	if value, ok := o.raw[optNoCache]; ok {
		o.noCacheAll = value == ""
		if value != "" {
			o.noCache = strings.Split(value, ",")
		}
	}
	switch imports, from := o.raw[optCacheImports], o.raw[optCacheFrom]; {
	case imports != "":
		if err := json.Unmarshal([]byte(imports), &o.cacheImports); err != nil {
			return fmt.Errorf("failed to unmarshal %s (%q): %w", optCacheImports, imports, err)
		}
	case from != "":
		for ref := range strings.SplitSeq(from, ",") {
			o.cacheImports = append(o.cacheImports, gateway.CacheImport{
				Type:  "registry",
				Attrs: map[string]string{"ref": ref},
			})
		}
	}
	return nil
}

func (o *options) parseCheck(gateway.BuildOpts) error {
	value, ok := o.buildArgs[argCheck]
	if !ok {
		return nil
	}
	c, err := lint.ParseConfig(value)
	if err != nil {
		return fmt.Errorf("failed to parse build-arg:%s: %w", argCheck, err)
	}
	o.check = &c
	return nil
}

func (o *options) parseMisc(gateway.BuildOpts) (err error) {
	if o.resolveMode, err = llb.ParseResolveMode(o.raw[optResolveMode]); err != nil {
		return err
	}
	if v := o.buildArgs[argKeepGitDir]; v != "" {
		if o.keepGitDir, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("invalid boolean value for %s: %s", argKeepGitDir, v)
		}
	}
	return nil
}

func (o *options) parseSBOM(gateway.BuildOpts) (err error) {
	o.sbom, err = attestation.RequestedSBOM(o.raw)
	return err
}

func (o *options) parseProcess(gateway.BuildOpts) (err error) {
	p := &o.process
	p.Hostname = or(o.raw[optHostname], o.buildArgs[argHostname])
	p.CgroupParent = o.raw[optCgroupParent]
	if p.ExtraHosts, err = parseHosts(o.raw[optAddHosts]); err != nil {
		return fmt.Errorf("failed to parse additional hosts: %w", err)
	}
	if p.Ulimits, err = parseUlimits(o.raw[optUlimit]); err != nil {
		return fmt.Errorf("failed to parse ulimit: %w", err)
	}
	if v := o.raw[optShmSize]; v != "" {
		if p.ShmSize, err = strconv.ParseInt(v, 10, 64); err != nil {
			return fmt.Errorf("failed to parse shm size: %w", err)
		}
	}
	if p.Network, p.Security, err = parseNetwork(o.raw[optNetwork]); err != nil {
		return err
	}
	if p.Resources, err = parseResources(o.raw); err != nil {
		return fmt.Errorf("failed to parse resource limits: %w", err)
	}
	return nil
}

func parseNetwork(value string) (pb.NetMode, pb.SecurityMode, error) {
	switch value {
	case "none":
		return pb.NetMode_NONE, pb.SecurityMode_SANDBOX, nil
	case "host":
		return pb.NetMode_HOST, pb.SecurityMode_SANDBOX, nil
	case "", "sandbox":
		return pb.NetMode_UNSET, pb.SecurityMode_SANDBOX, nil
	}
	return 0, 0, fmt.Errorf("invalid netmode %s", value)
}

func parseHosts(value string) ([]*pb.HostIP, error) {
	if value == "" {
		return nil, nil
	}
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return nil, err
	}
	var out []*pb.HostIP
	for _, field := range fields {
		host, ip, ok := strings.Cut(strings.ToLower(field), "=")
		if !ok {
			return nil, fmt.Errorf("invalid key-value pair %s", field)
		}
		ip = strings.TrimSpace(ip)
		if net.ParseIP(ip) == nil {
			return nil, fmt.Errorf("failed to parse IP %s", ip)
		}
		out = append(out, &pb.HostIP{Host: strings.TrimSpace(host), IP: ip})
	}
	return out, nil
}

func parseUlimits(value string) ([]*pb.Ulimit, error) {
	if value == "" {
		return nil, nil
	}
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return nil, err
	}
	var out []*pb.Ulimit
	for _, field := range fields {
		u, err := units.ParseUlimit(field)
		if err != nil {
			return nil, err
		}
		out = append(out, &pb.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	return out, nil
}

// parseResources reads limits; nil if there are none.
func parseResources(raw map[string]string) (*pb.LinuxResources, error) {
	r := &pb.LinuxResources{CpusetCpus: raw["cpusetcpus"], CpusetMems: raw["cpusetmems"]}
	given := r.CpusetCpus != "" || r.CpusetMems != ""
	for _, limit := range []struct {
		name string
		set  func(string) error
	}{
		{"memory", positive(&r.Memory)},
		{"memswap", signed(&r.MemorySwap)},
		{"cpushares", unsigned(&r.CpuShares)},
		{"cpuperiod", unsigned(&r.CpuPeriod)},
		{"cpuquota", signed(&r.CpuQuota)},
	} {
		value := raw[limit.name]
		if value == "" {
			continue
		}
		given = true
		if err := limit.set(value); err != nil {
			return nil, fmt.Errorf("invalid %s value: %s: %w", limit.name, value, err)
		}
	}
	if !given {
		return nil, nil
	}
	return r, nil
}

func signed(dst *int64) func(string) error {
	return func(s string) (err error) {
		*dst, err = strconv.ParseInt(s, 10, 64)
		return err
	}
}

func positive(dst *int64) func(string) error {
	return func(s string) error {
		if err := signed(dst)(s); err != nil {
			return err
		}
		if *dst <= 0 {
			return errors.New("must be > 0")
		}
		return nil
	}
}

func unsigned(dst *uint64) func(string) error {
	return func(s string) (err error) {
		*dst, err = strconv.ParseUint(s, 10, 64)
		return err
	}
}

// supportedCaps are what a client may require of the frontend.
var supportedCaps = []string{
	"moby.buildkit.frontend.inputs",
	"moby.buildkit.frontend.subrequests",
	"moby.buildkit.frontend.contexts",
	"moby.buildkit.frontend.gitquerystring",
}

// unsupportedCap returns the first required capability that the frontend lacks.
func (o *options) unsupportedCap() (name string, forward, ok bool) {
	for _, c := range o.caps {
		name, suffix, _ := strings.Cut(strings.TrimSpace(c), "+")
		if name != "" && !slices.Contains(supportedCaps, name) {
			return name, suffix == "forward", true
		}
	}
	return "", false, false
}
