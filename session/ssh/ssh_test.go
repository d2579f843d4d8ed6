package ssh_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/session/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keyFile makes a private key in a file.
func keyFile(t *testing.T, passphrase string) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := gossh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = gossh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	require.NoError(t, err)
	p := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(p, pem.EncodeToMemory(block), 0o600))
	return p
}

// socket listens and serves each connection, one at a time.
func socket(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "sock")
	lis, err := net.Listen("unix", p)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { lis.Close(); <-done })
	return p
}

func agentSocket(t *testing.T, open *atomic.Int32) (string, agent.Agent) {
	keys := agent.NewKeyring()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	require.NoError(t, keys.Add(agent.AddedKey{PrivateKey: key}))
	return socket(t, func(c net.Conn) {
		open.Add(1)
		defer open.Add(-1)
		_ = agent.ServeAgent(keys, c)
	}), keys
}

// connect forwards the agent with an id and returns a connection to it.
func connect(t *testing.T, id string, configs ...ssh.AgentConfig) net.Conn {
	t.Helper()
	p, err := ssh.NewProvider(configs)
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, p)
	require.NoError(t, ssh.CheckAgent(t.Context(), c, id))
	return dial(t, forward(t, c, ssh.ForwardOpt{ID: id, UID: 7, GID: 8, Mode: 0o600}))
}

// forward forwards an agent until the test ends.
func forward(t *testing.T, c *session.Caller, opt ssh.ForwardOpt) *ssh.Socket {
	t.Helper()
	sock, err := ssh.Forward(t.Context(), c, opt)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, sock.Close())
		require.NoError(t, sock.Close())
		require.NoFileExists(t, sock.Path)
	})
	info, err := os.Stat(sock.Path)
	require.NoError(t, err)
	require.Equal(t, opt.Mode, info.Mode().Perm())
	return sock
}

func dial(t *testing.T, sock *ssh.Socket) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", sock.Path)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func TestAgentsMayBeUsedAndNotChanged(t *testing.T) {
	var open atomic.Int32
	sock, _ := agentSocket(t, &open)
	for name, cfg := range map[string]ssh.AgentConfig{
		"an agent":  {Paths: []string{sock}},
		"key files": {Paths: []string{keyFile(t, "")}},
	} {
		t.Run(name, func(t *testing.T) {
			a := agent.NewClient(connect(t, "", cfg))
			keys, err := a.List()
			require.NoError(t, err)
			require.Len(t, keys, 1)
			sig, err := a.Sign(keys[0], []byte("data"))
			require.NoError(t, err)
			require.NoError(t, keys[0].Verify([]byte("data"), sig))
			require.Error(t, a.RemoveAll())
			require.Error(t, a.Lock([]byte("x")))
			_, key, err := ed25519.GenerateKey(rand.Reader)
			require.NoError(t, err)
			require.Error(t, a.Add(agent.AddedKey{PrivateKey: key}))
			keys, err = a.List()
			require.NoError(t, err)
			require.Len(t, keys, 1)
		})
	}
}

func TestConnectionsAreClosedAfterUse(t *testing.T) {
	var open atomic.Int32
	sock, _ := agentSocket(t, &open)
	for range 3 { // the agent serves one at a time
		a := connect(t, "id", ssh.AgentConfig{ID: "id", Paths: []string{sock}})
		_, err := agent.NewClient(a).List()
		require.NoError(t, err)
		require.EqualValues(t, 1, open.Load())
		require.NoError(t, a.Close())
	}
}

func TestRawSocketsCarryAnything(t *testing.T) {
	sock := socket(t, func(c net.Conn) {
		data, err := io.ReadAll(c)
		if err == nil {
			_, _ = c.Write(bytes.ToUpper(data))
		}
	})
	conn := connect(t, "raw", ssh.AgentConfig{ID: "raw", Paths: []string{sock}, Raw: true})
	text := strings.Repeat("abc", 100_000)
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
	require.NoError(t, conn.(*net.UnixConn).CloseWrite())
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, strings.ToUpper(text), string(got))
}

func TestAbsentAgents(t *testing.T) {
	p, err := ssh.NewProvider([]ssh.AgentConfig{{ID: "other", Paths: []string{keyFile(t, "")}}})
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, p)
	require.EqualError(t, ssh.CheckAgent(t.Context(), c, ""), "unset ssh forward key default")
	require.EqualError(t, ssh.CheckAgent(t.Context(), c, "x"), "unset ssh forward key x")
	_, c = sessiontest.Connect(t)
	require.EqualError(t, ssh.CheckAgent(t.Context(), c, ""), `no SSH key "" forwarded from the client`)
}

func TestBadConfigurations(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	key, locked := keyFile(t, ""), keyFile(t, "secret")
	sock := socket(t, func(net.Conn) {})
	junk := filepath.Join(t.TempDir(), "junk")
	require.NoError(t, os.WriteFile(junk, []byte("junk"), 0o600))
	for name, tc := range map[string]struct {
		configs []ssh.AgentConfig
		want    string
	}{
		"an id twice":       {[]ssh.AgentConfig{{Paths: []string{key}}, {ID: "default", Paths: []string{key}}}, `duplicate agent ID "default"`},
		"no agent":          {[]ssh.AgentConfig{{}}, "invalid empty ssh agent socket"},
		"two sockets":       {[]ssh.AgentConfig{{Paths: []string{sock, sock}}}, "only single socket allowed"},
		"both":              {[]ssh.AgentConfig{{Paths: []string{sock, key}}}, "invalid combination of keys and sockets"},
		"two raw":           {[]ssh.AgentConfig{{Paths: []string{sock, sock}, Raw: true}}, "raw mode must supply exactly one socket path"},
		"a raw key":         {[]ssh.AgentConfig{{Paths: []string{key}, Raw: true}}, "raw mode only supported with socket paths"},
		"a path of nothing": {[]ssh.AgentConfig{{Paths: []string{"/does/not/exist"}}}, "no such file"},
		"no key":            {[]ssh.AgentConfig{{Paths: []string{junk}}}, "failed to parse"},
		"a locked key":      {[]ssh.AgentConfig{{Paths: []string{locked}}}, "passphrase"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ssh.NewProvider(tc.configs)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestReleaseEndsConnections(t *testing.T) {
	held := make(chan struct{})
	sock := socket(t, func(c net.Conn) { <-held })
	defer close(held)
	p, err := ssh.NewProvider([]ssh.AgentConfig{{Paths: []string{sock}, Raw: true}})
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, p)
	forwarded := forward(t, c, ssh.ForwardOpt{Mode: 0o600})
	conn := dial(t, forwarded)
	_, err = conn.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, forwarded.Close())
	_, err = conn.Read(make([]byte, 1))
	require.True(t, err != nil && !errors.Is(err, os.ErrDeadlineExceeded))
	require.NoError(t, forwarded.Err(), "it is not the client that ended it")
}
