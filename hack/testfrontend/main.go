// Command testfrontend is a frontend for tests: it does what its option "mode" says, good or bad.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
)

// options are read from the environment also where the gateway API is not spoken.
func option(name string) string {
	for _, kv := range os.Environ() {
		_, value, _ := strings.Cut(kv, "=")
		if v, ok := strings.CutPrefix(value, name+"="); ok && strings.HasPrefix(kv, "BUILDKIT_FRONTEND_OPT_") {
			return v
		}
	}
	return ""
}

// modes are what the program does instead of serving.
var modes = map[string]func() error{
	"crash": func() error {
		fmt.Fprint(os.Stderr, "first words\n\x1b[31mlast words\n")
		os.Exit(7)
		return nil
	},
	"silent": func() error { return nil },
	"hang":   wait,
	"stuck": func() error {
		return serve(func(ctx context.Context, _ gateway.Client) (*gateway.Result, error) {
			fmt.Fprintln(os.Stderr, "now I wait")
			<-ctx.Done()
			return nil, ctx.Err()
		})
	},
	"garbage": func() error {
		fmt.Println("hello, I print where I should not")
		for chunk := bytes.Repeat([]byte("garbage "), 8<<10); ; {
			if _, err := os.Stdout.Write(chunk); err != nil {
				return err
			}
		}
	},
	"chatty": func() error {
		line := append(bytes.Repeat([]byte("x"), 1<<10), '\n')
		for range 16 << 10 {
			_, _ = os.Stderr.Write(line)
		}
		return errors.New("said too much")
	},
	"memory": func() error {
		for all := []byte("x"); ; {
			all = append(all, all...)
		}
	},
	"linger": func() error {
		_ = serve(hello)
		return wait()
	},
	"bad-exit": func() error {
		_ = serve(hello)
		return errors.New("ended badly after all was well")
	},
	"error": func() error {
		return serve(func(context.Context, gateway.Client) (*gateway.Result, error) {
			return nil, errors.New("the input is wrong")
		})
	},
	"network": func() error {
		interfaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		return serve(file("interfaces", fmt.Appendln(nil, len(interfaces))))
	},
	"environment": func() error {
		cwd, err := os.Getwd()
		if err != nil {
			return err
		}
		own, err := os.ReadFile("/run/config/buildkit/metadata/frontend.bin")
		if err != nil {
			return err
		}
		if err := os.WriteFile("/scribble", nil, 0o600); err != nil {
			return err
		}
		env := os.Environ()
		slices.Sort(env)
		text, err := json.Marshal(map[string]any{"args": os.Args, "cwd": cwd, "env": env, "own": own})
		if err != nil {
			return err
		}
		return serve(file("environment", text))
	},
	"inputs": func() error { return serve(inputs) },
	"none": func() error {
		return serve(func(context.Context, gateway.Client) (*gateway.Result, error) { return nil, nil })
	},
}

func main() {
	mode := modes[option("mode")]
	if mode == nil {
		mode = func() error { return serve(hello) }
	}
	if err := mode(); err != nil {
		fmt.Fprintln(os.Stderr, "testfrontend:", err)
		os.Exit(1)
	}
}

// wait does not end. The runtime of Go would end a program of which no part can go on.
func wait() error {
	<-time.After(time.Hour)
	return nil
}

func serve(build gateway.BuildFunc) error {
	return gateway.Serve(context.Background(), os.Stdin, os.Stdout, os.Environ(), build)
}

func hello(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	who := c.BuildOpts().Opts["who"]
	if who == "" {
		who = "world"
	}
	return file("hello", []byte("hello, "+who+"\n"))(ctx, c)
}

// file returns a frontend whose result is one file.
func file(name string, data []byte) gateway.BuildFunc {
	return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		def, err := llb.Scratch().File(llb.Mkfile("/"+name, 0o644, data)).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		return c.Solve(ctx, gateway.SolveRequest{Definition: def})
	}
}

// inputs returns the tree of the only input.
func inputs(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	defs, err := c.Inputs(ctx)
	if err != nil {
		return nil, err
	}
	if len(defs) != 1 {
		return nil, fmt.Errorf("%d inputs", len(defs))
	}
	name := slices.Collect(maps.Keys(defs))[0]
	fmt.Fprintln(os.Stderr, "input", name)
	return c.Solve(ctx, gateway.SolveRequest{Definition: defs[name]})
}
