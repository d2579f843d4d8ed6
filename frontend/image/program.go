package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend"
)

// definitionFile is where a program finds the definition of its own tree.
const definitionFile = "/run/config/buildkit/metadata/frontend.bin"

// defaultEntrypoint is run if the image names nothing. What it gives as its command is not looked
// at.
const defaultEntrypoint = "/run"

// program returns what is run of an image.
func (f *Frontend) program(ctx context.Context, c client.Client, img *image) (frontend.Program, error) {
	p := frontend.Program{
		Name:      img.name,
		Args:      img.config.Entrypoint,
		Cwd:       img.config.WorkingDir,
		MaxMemory: f.cfg.MaxMemory,
	}
	if len(p.Args) == 0 {
		p.Args = []string{defaultEntrypoint}
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if v, err := strconv.ParseBool(img.config.Labels[labelNoNetwork]); err == nil {
		p.NoNetwork = v
	}
	var err error
	if p.Env, err = environment(img.config.Env, c.BuildOpts()); err != nil {
		return p, err
	}
	def, err := img.tree.Marshal(ctx, llb.Platform(img.platform))
	if err != nil {
		return p, err
	}
	res, err := c.Solve(ctx, client.SolveRequest{Definition: def})
	if err != nil {
		return p, err
	}
	if p.Root, err = res.SingleRef(); err != nil {
		return p, err
	}
	if p.Root == nil {
		return p, errors.New("the tree of the frontend is empty")
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(def)
	if err != nil {
		return p, fmt.Errorf("definition of frontend %s: %w", img.name, err)
	}
	p.Files = map[string][]byte{definitionFile: data}
	return p, nil
}

// environment returns the variables of the image and those that tell the program of the build.
func environment(env []string, bo client.BuildOpts) ([]string, error) {
	env = slices.Clone(env)
	for i, key := range slices.Sorted(maps.Keys(bo.Opts)) {
		value := bo.Opts[key]
		if strings.Contains(key, "=") || strings.ContainsRune(key+value, 0) {
			return nil, status.New(codes.InvalidArgument, fmt.Sprintf("option %q cannot be passed to a program", key))
		}
		env = append(env, fmt.Sprintf("BUILDKIT_FRONTEND_OPT_%d=%s=%s", i, key, value))
	}
	workers, err := json.Marshal(bo.Workers)
	if err != nil {
		return nil, fmt.Errorf("encode workers: %w", err)
	}
	return append(env,
		"BUILDKIT_SESSION_ID="+bo.SessionID,
		"BUILDKIT_WORKERS="+string(workers),
		"BUILDKIT_EXPORTEDPRODUCT="+bo.Product,
	), nil
}
