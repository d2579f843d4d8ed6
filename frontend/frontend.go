// Package frontend is the contract of what turns a user's build description into LLB.
//
// A Frontend is given a Bridge and nothing else: through that it reads files, resolves images and
// solves definitions. The Bridge is the gateway client interface, so that one frontend runs
// built into the daemon, on a client's side and inside a container. The packages below hold the
// Dockerfile frontend and the gateway server that lets frontends outside of the daemon in.
// Frontends know neither solver nor worker.
package frontend

import "github.com/openbuildkit/buildkit/client/gateway"

// Bridge is what a frontend may ask for.
type Bridge = gateway.Client

// Frontend produces the result of a build.
type Frontend = gateway.BuildFunc

// Registry holds the frontends of a daemon by name, such as dockerfile.v0.
type Registry map[string]Frontend
