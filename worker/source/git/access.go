//go:build linux

package git

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openbuildkit/buildkit/api/giturl"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/ssh"
)

// github is the one host of which the credentials for a repository are for all repositories.
const github = "github.com"

// access is what git needs to reach a remote on behalf of a build: a folder with its
// configuration, credentials, known hosts and the socket of an agent.
type access struct {
	command
	release func() error
}

// access prepares git, for a remote that has moved if that is not empty. The caller releases it;
// the agent of the client can be used until then.
func (i *instance) access(ctx context.Context, moved string) (_ *access, err error) {
	if err := os.MkdirAll(i.src.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(i.src.cfg.Dir, "job-")
	if err != nil {
		return nil, err
	}
	a := &access{release: func() error { return os.RemoveAll(dir) }}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.release())
		}
	}()
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	if err := i.authorize(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config")
	auth := i.auth.at(moved)
	if err := os.WriteFile(file, []byte(config(auth != nil, i.src.cfg.Stall)), 0o600); err != nil {
		return nil, err
	}
	a.command = command{scope: i.env.Scope, stall: i.src.cfg.Stall, env: []string{
		"HOME=" + home, "XDG_CONFIG_HOME=" + home, "TMPDIR=" + dir,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + file, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=" + transports, "GIT_PROTOCOL_FROM_USER=0",
		"GIT_LITERAL_PATHSPECS=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_OPTIONAL_LOCKS=0",
		"LC_ALL=C", "LANG=C",
	}}
	a.env = append(a.env, auth.env()...)
	for _, v := range i.src.cfg.Environ {
		for _, name := range fromDaemon {
			if strings.HasPrefix(v, name+"=") {
				a.env = append(a.env, v)
			}
		}
	}
	return a, i.addSSH(ctx, a, dir)
}

// header is a header that requests to urls below a scope carry.
type header struct{ scope, value string }

// at returns the header for a remote that has moved on its host.
func (h *header) at(moved string) *header {
	if h == nil || moved == "" || strings.HasPrefix(moved, h.scope) {
		return h
	}
	return &header{scope: moved, value: h.value}
}

// env returns the variables that make git send the header. It is never on a disk.
func (h *header) env() []string {
	if h == nil {
		return nil
	}
	return []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http." + h.scope + ".extraHeader", "GIT_CONFIG_VALUE_0=" + h.value}
}

// config returns what git is configured to, for remotes that may be silent for the time of stall and
// may want a header.
func config(header bool, stall time.Duration) string {
	var b strings.Builder
	b.WriteString(`[core]
	hooksPath = /dev/null
	fsmonitor = false
	attributesFile = /dev/null
	excludesFile = /dev/null
	autocrlf = false
[safe]
	directory = *
	bareRepository = explicit
[init]
	defaultBranch = main
[advice]
	detachedHead = false
[gc]
	auto = 0
[maintenance]
	auto = false
[fetch]
	unpackLimit = 1
[fetch]
	recurseSubmodules = false
[submodule]
	recurse = false
[credential]
	helper =
[http]
	lowSpeedLimit = 1
`)
	fmt.Fprintf(&b, "\tlowSpeedTime = %d\n", max(1, int(stall.Seconds())))
	if header {
		// A redirect may lead to another host, where the header must not go.
		b.WriteString("\tfollowRedirects = false\n")
	}
	return b.String()
}

// authorize finds the credentials that the build has for the remote, if it did not before.
func (i *instance) authorize(ctx context.Context) (err error) {
	if i.authorized {
		return nil
	}
	i.asked = nil
	i.auth, err = i.authorization(ctx)
	i.authorized = err == nil
	return err
}

// authorization returns the header for the remote; nil if there are no credentials. It notes the
// sessions that they are of, or that have none.
func (i *instance) authorization(ctx context.Context) (*header, error) {
	r := i.id.Remote
	if r.Scheme != giturl.HTTP && r.Scheme != giturl.HTTPS {
		return nil, nil
	}
	if u := r.User; u != nil {
		password, _ := u.Password()
		return &header{r.Scheme + "://" + r.Host + "/", "Authorization: Basic " + basic(u.Username(), password)}, nil
	}
	scope := r.Remote()
	if r.Scheme == giturl.HTTPS && r.Host == github {
		scope = "https://" + github + "/"
	}
	for _, c := range []struct {
		secret string
		value  func(string) string
	}{
		{hosted(i.id.AuthHeader, r.Host), asHeader},
		{hosted(i.id.AuthToken, r.Host), asToken},
		{i.id.AuthHeader, asHeader},
		{i.id.AuthToken, asToken},
	} {
		v, asked, err := i.secret(ctx, c.secret)
		if err != nil {
			return nil, err
		}
		if c.secret != "" {
			i.asked = asked
		}
		if v != "" {
			return &header{scope, c.value(v)}, nil
		}
	}
	return nil, nil
}

func hosted(secret, host string) string {
	if secret == "" {
		return ""
	}
	return secret + "." + host
}

func asHeader(v string) string { return "Authorization: " + v }

func asToken(v string) string { return "Authorization: basic " + basic("x-access-token", v) }

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// secret returns an empty text for a secret that nobody has.
func (i *instance) secret(ctx context.Context, name string) (value string, asked []string, err error) {
	if name == "" {
		return "", nil, nil
	}
	value, asked, err = secrets.Optional(ctx, i.src.cfg.Sessions, i.env.Sessions, name)
	if err != nil {
		return "", nil, fmt.Errorf("secret %s for %s: %w", name, i.id, err)
	}
	value = strings.TrimSpace(value)
	if strings.ContainsAny(value, "\r\n\x00") {
		return "", nil, session.BlameAll(asked, fmt.Errorf("secret %s for %s has more than one line", name, i.id))
	}
	return value, asked, nil
}

// addSSH says how ssh is called, and forwards the agent of the client.
func (i *instance) addSSH(ctx context.Context, a *access, dir string) error {
	if i.id.Remote.Scheme != giturl.SSH && i.id.Agent == "" && i.id.KnownHosts == "" {
		return nil
	}
	options := []string{
		"BatchMode=yes", "ConnectTimeout=30", "ServerAliveInterval=30", "ServerAliveCountMax=4",
		"GlobalKnownHostsFile=/dev/null", "ForwardAgent=no", "ClearAllForwardings=yes", "PermitLocalCommand=no",
		"UpdateHostKeys=no", "LogLevel=ERROR",
	}
	if hosts := i.id.KnownHosts; hosts != "" {
		file := filepath.Join(dir, "known_hosts")
		if err := os.WriteFile(file, []byte(hosts+"\n"), 0o600); err != nil {
			return err
		}
		options = append(options, "StrictHostKeyChecking=yes", `UserKnownHostsFile="`+file+`"`)
	} else {
		options = append(options, "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
	}
	call := "ssh -F /dev/null"
	for _, o := range options {
		call += " -o " + shellQuote(o)
	}
	a.env = append(a.env, "GIT_SSH_COMMAND="+call, "GIT_SSH_VARIANT=ssh")
	if i.id.Agent == "" {
		return nil
	}
	return i.src.cfg.Sessions.Ask(ctx, i.env.Sessions, func(_ context.Context, c *session.Caller) error {
		if err := ssh.CheckAgent(ctx, c, i.id.Agent); err != nil {
			return err
		}
		// The agent is there for the job, not for the time of this call.
		sock, err := ssh.Forward(context.WithoutCancel(ctx), c, ssh.ForwardOpt{ID: i.id.Agent, UID: os.Getuid(), GID: os.Getgid(), Mode: 0o600})
		if err != nil {
			return err
		}
		a.env = append(a.env, "SSH_AUTH_SOCK="+sock.Path)
		i.agent = c.ID()
		files := a.release
		a.release = func() error { return errors.Join(sock.Close(), files()) }
		return nil
	})
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
