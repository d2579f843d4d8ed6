package e2e_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// The users of private registries. No password may show up anywhere.
var passwords = map[string]string{"ann": "password-of-ann", "bob": "password-of-bob"}

// login makes a client use the credentials of a user at a registry.
func (c *client) login(tb testing.TB, host, user string) {
	tb.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + passwords[user]))
	dir := tree(tb, map[string]string{"config.json": fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)})
	c.cmd.Env = append(c.cmd.Env, "DOCKER_CONFIG="+dir)
}

// pushAs has the daemon push an image that is base with a file in it, with the credentials of a
// user.
func pushAs(tb testing.TB, d *harness.Daemon, user, host, reference, file string, more ...string) {
	tb.Helper()
	dir := tree(tb, map[string]string{"Dockerfile": "FROM busybox\nCOPY private /", "private": file})
	c := prepare(tb, d, harness.DockerfileArgs(dir, append(more, "--output=type=image,name="+reference+",push=true")...)...)
	c.login(tb, host, user)
	c.start(tb)
	r := c.wait(tb)
	require.Zero(tb, r.Code, r.Stderr)
}

// requireSecret fails if a password, in any form, or a token is in a text.
func requireSecret(tb testing.TB, text string) {
	tb.Helper()
	for user, password := range passwords {
		require.NotContains(tb, text, password)
		require.NotContains(tb, text, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	require.NotContains(tb, text, "Bearer ey")
	require.NotContains(tb, text, base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"`)))
}

// private starts a registry in which everything below a user's name is that user's, with an
// encrypted token server that only its own CA vouches for.
func private(tb testing.TB) (*registrytest.Server, *registrytest.TokenServer) {
	tb.Helper()
	tokens := registrytest.StartTokens(tb, registrytest.TokenOptions{
		TLS: true, Users: passwords,
		Rights: func(user, repository string) string {
			if user != "" && strings.HasPrefix(repository, user+"/") {
				return "pull,push"
			}
			return ""
		},
	})
	return registrytest.Start(tb, registrytest.Options{Users: passwords, Tokens: tokens}), tokens
}

func TestTokensAreFetchedByTheClientWithTheTLSContextItIsGiven(t *testing.T) {
	s, tokens := private(t)
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	build := func(user string, more ...string) harness.Result {
		args := append([]string{"--output=type=image,name=" + s.Addr + "/ann/app:1,push=true"}, more...)
		c := prepare(t, d, harness.DockerfileArgs(dockerfile(t, "FROM scratch", "COPY Dockerfile /"), args...)...)
		c.login(t, s.Addr, user)
		c.start(t)
		r := c.wait(t)
		requireSecret(t, r.Stdout+r.Stderr+d.Logs())
		return r
	}
	context := "--registry-auth-tlscontext=host=" + s.Addr + ",ca=" + tokens.CA
	r := build("ann", context)
	require.Zero(t, r.Code, r.Stderr)
	require.Contains(t, r.Stderr, "[auth] ann/app:pull,push token for "+s.Addr)
	require.Equal(t, []string{"ann repository:ann/app:pull,push"}, tokens.Issued(), "one token does for the push")

	r = build("ann")
	require.Equal(t, 1, r.Code)
	require.Contains(t, r.Stderr, "failed to push "+s.Addr+"/ann/app:1")
	require.Contains(t, r.Stderr, "certificate signed by unknown authority")
	require.Zero(t, build("ann", "--registry-auth-tlscontext=host="+s.Addr+",insecure=true").Code)

	r = build("bob", context)
	require.Equal(t, 1, r.Code)
	require.Contains(t, errorMessage(t, r), "failed to push "+s.Addr+"/ann/app:1: push access denied")
}

// Whoever builds along with somebody who may pull an image does not get it that way.
func TestCredentialsOfAClientServeNobodyElse(t *testing.T) {
	s, tokens := private(t)
	d, _ := startWithRegistry(t, harness.DaemonOptions{})
	base, context := s.Addr+"/ann/base:1", "--registry-auth-tlscontext=host="+s.Addr+",ca="+tokens.CA
	pushAs(t, d, "ann", s.Addr, base, "known only to ann\n", context)
	begin := func(user, dir string, more ...string) *client {
		c := prepare(t, d, harness.DockerfileArgs(dir, append(more, context)...)...)
		c.login(t, s.Addr, user)
		c.start(t)
		return c
	}
	requireDenied := func(c *client) {
		t.Helper()
		r := c.wait(t)
		require.Equal(t, 1, r.Code, r.Stderr)
		require.Contains(t, errorMessage(t, r), "pull access denied")
		require.NotContains(t, r.Stderr, "known only to ann")
		requireSecret(t, r.Stderr)
	}
	t.Run("while their build runs", func(t *testing.T) {
		dir := dockerfile(t, "FROM "+base, "RUN cat /private && sleep 5")
		ann := begin("ann", dir, "--no-cache")
		ann.await(t, "known only to ann")
		requireDenied(begin("bob", dir, "--no-cache"))
		require.Zero(t, ann.wait(t).Code)
	})
	t.Run("at the same moment, in any order", func(t *testing.T) {
		for round := range 3 {
			dir := dockerfile(t, "FROM "+base, fmt.Sprintf("RUN cat /private && sleep 1 # %d", round))
			users := []string{"bob", "ann", "bob", "ann"}
			var clients []*client
			for _, user := range users {
				clients = append(clients, begin(user, dir, "--no-cache"))
			}
			for i, user := range users {
				if user == "bob" {
					requireDenied(clients[i])
					continue
				}
				r := clients[i].wait(t)
				require.Zero(t, r.Code, r.Stderr)
			}
		}
	})
	t.Run("when all is in the cache", func(t *testing.T) {
		dir := dockerfile(t, "FROM "+base, "RUN cat /private")
		require.Zero(t, begin("ann", dir).wait(t).Code)
		requireDenied(begin("bob", dir))
	})
	t.Run("when they push along", func(t *testing.T) {
		push := func(user, to string) *client {
			dir := dockerfile(t, "FROM scratch", "COPY Dockerfile /")
			return begin(user, dir, "--output=type=image,name="+s.Addr+to+",push=true")
		}
		ann, bob := push("ann", "/ann/both:1"), push("bob", "/ann/both:2")
		require.Zero(t, ann.wait(t).Code)
		r := bob.wait(t)
		require.Equal(t, 1, r.Code)
		require.Contains(t, errorMessage(t, r), "push access denied")
	})
	requireSecret(t, d.Logs())
	requirePruned(t, d)
}
