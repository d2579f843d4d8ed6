package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	sshpb "github.com/openbuildkit/buildkit/api/session/ssh"
)

// AgentConfig describes what is offered under an id.
type AgentConfig struct {
	// ID is empty for the default agent.
	ID string
	// Paths are key files, or one socket. None means the agent of the user's environment.
	Paths []string
	// Raw passes the bytes of the socket on as they are.
	Raw bool
}

// Provider is the client's service.
type Provider struct {
	sshpb.UnimplementedSSHServer
	sources map[string]source
}

// source is where connections go: to a socket, or to keys.
type source struct {
	socket string
	raw    bool
	keys   agent.Agent
}

// NewProvider reads key files and checks that sockets are there.
func NewProvider(configs []AgentConfig) (*Provider, error) {
	p := &Provider{sources: map[string]source{}}
	for _, cfg := range configs {
		id := orDefault(cfg.ID)
		if _, ok := p.sources[id]; ok {
			return nil, fmt.Errorf("duplicate agent ID %q", id)
		}
		src, err := newSource(cfg)
		if err != nil {
			return nil, fmt.Errorf("failed to convert agent config %q: %w", id, err)
		}
		p.sources[id] = src
	}
	return p, nil
}

func newSource(cfg AgentConfig) (source, error) {
	paths := cfg.Paths
	if len(paths) == 0 {
		paths = []string{defaultSocket()}
	}
	if paths[0] == "" {
		return source{}, errors.New("invalid empty ssh agent socket, make sure SSH_AUTH_SOCK is set")
	}
	if cfg.Raw && len(paths) != 1 {
		return source{}, errors.New("raw mode must supply exactly one socket path")
	}
	src := source{raw: cfg.Raw}
	var keys agent.Agent
	for _, p := range paths {
		isSocket, err := socketAt(p)
		if err != nil {
			return source{}, err
		}
		if isSocket {
			if src.socket != "" {
				return source{}, errors.New("only single socket allowed")
			}
			src.socket = p
			continue
		}
		if cfg.Raw {
			return source{}, errors.New("raw mode only supported with socket paths")
		}
		if keys == nil {
			keys = agent.NewKeyring()
		}
		if err := addKey(keys, p); err != nil {
			return source{}, err
		}
	}
	if keys != nil && src.socket != "" {
		return source{}, errors.New("invalid combination of keys and sockets")
	}
	src.keys = keys
	return src, nil
}

// socketAt reports whether there is a socket at a path. A path that is not there is an error.
func socketAt(p string) (bool, error) {
	if isPipeName(p) {
		return true, nil
	}
	info, err := os.Stat(p)
	if err != nil {
		return false, err
	}
	return info.Mode()&fs.ModeSocket != 0, nil
}

// maxKey bounds a key file in bytes.
const maxKey = 100 << 10

func addKey(keys agent.Agent, p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return fmt.Errorf("failed to read %s: %w", p, err)
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return fmt.Errorf("failed to parse %s: %w", p, err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		return fmt.Errorf("failed to add %s to agent: %w", p, err)
	}
	return nil
}

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) { sshpb.RegisterSSHServer(srv, p) }

// CheckAgent tells whether there is an agent with an id.
func (p *Provider) CheckAgent(_ context.Context, req *sshpb.CheckAgentRequest) (*sshpb.CheckAgentResponse, error) {
	if _, err := p.source(req.GetID()); err != nil {
		return nil, err
	}
	return &sshpb.CheckAgentResponse{}, nil
}

func (p *Provider) source(id string) (source, error) {
	id = orDefault(id)
	src, ok := p.sources[id]
	if !ok {
		return source{}, agentError("unset ssh forward key " + id)
	}
	return src, nil
}

// ForwardAgent is one connection to an agent.
func (p *Provider) ForwardAgent(stream grpc.BidiStreamingServer[sshpb.BytesMessage, sshpb.BytesMessage]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	id := ""
	if v := md.Get(keyID); len(v) > 0 {
		id = v[0]
	}
	src, err := p.source(id)
	if err != nil {
		return err
	}
	conn := &streamConn{messages: stream}
	if src.keys != nil {
		return serveAgent(readOnly{extended{src.keys}}, conn)
	}
	sock, err := dial(src.socket)
	if err != nil {
		return fmt.Errorf("failed to connect to %s: %w", src.socket, err)
	}
	// A call that ends must not wait for an agent that does not answer.
	stop := context.AfterFunc(stream.Context(), func() { sock.Close() })
	defer stop()
	defer sock.Close()
	if src.raw {
		return serveRaw(sock, conn)
	}
	return serveAgent(readOnly{agent.NewClient(sock)}, conn)
}

func serveAgent(a agent.Agent, conn io.ReadWriter) error {
	if err := agent.ServeAgent(a, conn); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// serveRaw moves bytes until the socket has no more to say. What waits for the stream ends when the
// call has returned.
func serveRaw(sock io.ReadWriter, conn io.ReadWriter) error {
	go func() {
		if err := copyAll(sock, conn); err != nil {
			return // the call has ended, or will
		}
		if half, ok := sock.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	return copyAll(conn, sock)
}

// extended lets the keys of files be used as the agents of sockets are.
type extended struct{ agent.Agent }

func (e extended) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	if a, ok := e.Agent.(agent.ExtendedAgent); ok {
		return a.SignWithFlags(key, data, flags)
	}
	return e.Sign(key, data)
}

func (extended) Extension(string, []byte) ([]byte, error) { return nil, agent.ErrExtensionUnsupported }
