package connhelper

import (
	"io"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddressesBecomeCommands(t *testing.T) {
	for address, want := range map[string]command{
		"docker-container://name":                  {"docker", "exec", "-i", "name", "buildctl", "dial-stdio"},
		"docker-container://name?context=c":        {"docker", "--context=c", "exec", "-i", "name", "buildctl", "dial-stdio"},
		"podman-container://name":                  {"podman", "exec", "-i", "name", "buildctl", "dial-stdio"},
		"nerdctl-container://name":                 {"nerdctl", "exec", "-i", "name", "buildctl", "dial-stdio"},
		"nerdctl-container://n?namespace=k":        {"nerdctl", "exec", "--namespace", "k", "-i", "n", "buildctl", "dial-stdio"},
		"kube-pod://pod":                           {"kubectl", "--context=", "--namespace=", "exec", "--container=", "-i", "pod", "--", "buildctl", "dial-stdio"},
		"kube-pod://p?context=arn:x/y&container=c": {"kubectl", "--context=arn:x/y", "--namespace=", "exec", "--container=c", "-i", "p", "--", "buildctl", "dial-stdio"},
		"ssh://host":                               {"ssh", "--", "host", "buildctl", "dial-stdio"},
		"ssh://me@host:22/run/b.sock":              {"ssh", "-l", "me", "-p", "22", "--", "host", "buildctl", "--addr", "unix:///run/b.sock", "dial-stdio"},
	} {
		u, err := url.Parse(address)
		require.NoError(t, err)
		cmd, err := helperOf(u.Scheme)(u)
		require.NoError(t, err, address)
		require.Equal(t, want, cmd, address)
	}
}

func TestBadAddressesAreRefused(t *testing.T) {
	for address, text := range map[string]string{
		"docker-container://":          "url lacks container name",
		"podman-container://":          "url lacks container name",
		"nerdctl-container://":         "url lacks container name",
		"kube-pod://":                  "url lacks pod name",
		"kube-pod://p_q":               `unexpected pod name "p_q"`,
		"kube-pod://p?namespace=a%3Bb": `unexpected namespace "a;b"`,
		"ssh://":                       "no host specified",
		"ssh://user:pw@h":              "plain-text password is not supported",
		"ssh://h?x=y":                  `extra query after the host: "x=y"`,
		"ssh://h#x":                    `extra fragment after the host: "x"`,
		"npipe://x":                    "npipe connections are only supported on windows",
		"ssh://a:pw@[h":                "invalid address: missing ']' in host",
	} {
		_, err := Get(address)
		require.EqualError(t, err, text, address)
	}
	for _, address := range []string{"unix:///x", "tcp://h:1", "nonsense"} {
		d, err := Get(address)
		require.NoError(t, err)
		require.Nil(t, d)
	}
}

func TestAProgramIsTheConnection(t *testing.T) {
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "podman"), []byte("#!/bin/sh\necho \"$@\"\nexec cat\n"), 0o755))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	dial, err := Get("podman-container://name")
	require.NoError(t, err)
	conn, err := dial(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("ping"))
	require.NoError(t, err)
	want := "exec -i name buildctl dial-stdio\nping"
	got := make([]byte, len(want))
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}
