//go:build linux

package git

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/shlex"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// listen takes connections until the test ends. Each is given to serve, and closed afterwards.
func listen(t *testing.T, serve func(net.Conn)) (addr string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { lis.Close() })
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return lis.Addr().String()
}

// gitDaemon serves repositories below root by git's own protocol.
func gitDaemon(t *testing.T, root string) (addr string) {
	t.Helper()
	// git daemon --inetd serves one connection on its standard input.
	return listen(t, func(conn net.Conn) {
		cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+root)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
		f, err := conn.(*net.TCPConn).File()
		if err != nil {
			return
		}
		defer f.Close()
		cmd.Stdin, cmd.Stdout = f, f
		_ = cmd.Run()
	})
}

// sshServer serves git to those who have a key.
type sshServer struct {
	addr string
	host ssh.PublicKey
	// muted is closed if the commands of those who log in are to say nothing.
	muted chan struct{}
}

func (s *sshServer) mute() { close(s.muted) }

func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	signer, err := ssh.NewSignerFromKey(key)
	require.NoError(t, err)
	return signer, file
}

func serveSSH(t *testing.T, allowed ssh.PublicKey) *sshServer {
	t.Helper()
	host, _ := newKey(t)
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() == "git" && string(key.Marshal()) == string(allowed.Marshal()) {
			return nil, nil
		}
		return nil, errors.New("no")
	}}
	cfg.AddHostKey(host)
	s := &sshServer{host: host.PublicKey(), muted: make(chan struct{})}
	s.addr = listen(t, func(conn net.Conn) { s.serve(conn, cfg) })
	return s
}

func (s *sshServer) serve(conn net.Conn, cfg *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		ch, requests, err := offered.Accept()
		if err != nil {
			return
		}
		go func() {
			defer ch.Close()
			for req := range requests {
				if req.Type != "exec" {
					_ = req.Reply(req.Type == "env", nil)
					continue
				}
				_ = req.Reply(true, nil)
				select {
				case <-s.muted:
					_, _ = io.Copy(io.Discard, ch)
					return
				default:
				}
				args, err := shlex.Split(string(req.Payload[4:]))
				if err != nil || len(args) != 2 || args[0] != "git-upload-pack" {
					return
				}
				cmd := exec.Command("git", "upload-pack", args[1])
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}
				cmd.Stdin, cmd.Stdout, cmd.Stderr = ch, ch, ch.Stderr()
				if cmd.Run() == nil {
					_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
				}
				return
			}
		}()
	}
}

// hanging is a server that takes connections and says nothing.
func hanging(t *testing.T) (addr string, connected <-chan struct{}) {
	t.Helper()
	ch := make(chan struct{}, 8)
	addr = listen(t, func(conn net.Conn) {
		if _, err := bufio.NewReader(conn).Peek(1); err == nil {
			ch <- struct{}{}
		}
		<-t.Context().Done()
	})
	return addr, ch
}

// gitProxy serves git:// and passes what it sends through copied.
func gitProxy(t *testing.T, root string, copied func(to io.Writer, from io.Reader)) (addr string) {
	t.Helper()
	server := gitDaemon(t, root)
	return listen(t, func(conn net.Conn) {
		up, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer up.Close()
		go func() { _, _ = io.Copy(up, conn) }()
		copied(conn, up)
	})
}

// processes returns the command lines that name a text.
func processes(t *testing.T, text string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && strings.Contains(string(line), text) {
			found = append(found, string(line))
		}
	}
	return found
}
