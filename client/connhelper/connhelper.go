// Package connhelper connects to daemons that are reached through another program: in a
// container, in a pod, or on another host. Such a program runs "buildctl dial-stdio" beside the
// daemon and its standard streams are the connection.
//
// The package turns an address into a Dialer. It does not connect by itself and knows nothing of
// the protocol on the connection.
package connhelper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"

	"github.com/docker/cli/cli/connhelper/commandconn"
)

// Dialer opens a connection. The program behind it lives until the connection is closed, also if
// ctx ends before.
type Dialer func(ctx context.Context) (net.Conn, error)

// helper returns the command that connects to an address.
type helper func(*url.URL) (command, error)

// command is a program with its arguments.
type command []string

// Get returns the Dialer of an address, nil if its scheme needs no helper.
func Get(address string) (Dialer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("invalid address: %w", cause(err))
	}
	if u.Scheme == "npipe" {
		return npipe(address)
	}
	h := helperOf(u.Scheme)
	if h == nil {
		return nil, nil
	}
	cmd, err := h(u)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) {
		return commandconn.New(ctx, cmd[0], cmd[1:]...)
	}, nil
}

// cause leaves out the URL that an error of parsing repeats, which may hold a password.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func helperOf(scheme string) helper {
	switch scheme {
	case "docker-container":
		return dockerContainer
	case "podman-container":
		return podmanContainer
	case "nerdctl-container":
		return nerdctlContainer
	case "kube-pod":
		return kubePod
	case "ssh":
		return ssh
	}
	return nil
}

func containerName(u *url.URL) (string, error) {
	if u.Hostname() == "" {
		return "", errors.New("url lacks container name")
	}
	return u.Hostname(), nil
}

func dockerContainer(u *url.URL) (command, error) {
	name, err := containerName(u)
	if err != nil {
		return nil, err
	}
	cmd := command{"docker"}
	if c := u.Query().Get("context"); c != "" {
		cmd = append(cmd, "--context="+c)
	}
	return append(cmd, "exec", "-i", name, "buildctl", "dial-stdio"), nil
}

func podmanContainer(u *url.URL) (command, error) {
	name, err := containerName(u)
	if err != nil {
		return nil, err
	}
	return command{"podman", "exec", "-i", name, "buildctl", "dial-stdio"}, nil
}

func nerdctlContainer(u *url.URL) (command, error) {
	name, err := containerName(u)
	if err != nil {
		return nil, err
	}
	cmd := command{"nerdctl", "exec"}
	if ns := u.Query().Get("namespace"); ns != "" {
		cmd = append(cmd, "--namespace", ns)
	}
	return append(cmd, "-i", name, "buildctl", "dial-stdio"), nil
}

// kubeName is what may stand in a kubectl flag without being taken for another one's value.
var kubeName = regexp.MustCompile(`^[-a-z0-9.]+$`)

func kubePod(u *url.URL) (command, error) {
	pod := u.Hostname()
	if pod == "" {
		return nil, errors.New("url lacks pod name")
	}
	q := u.Query()
	for _, f := range []struct{ what, value string }{
		{"pod name", pod},
		{"context", q.Get("context")},
		{"namespace", q.Get("namespace")},
		{"container", q.Get("container")},
	} {
		// A context is passed on as it is: clouds name them with colons and slashes.
		if f.what != "context" && f.value != "" && !kubeName.MatchString(f.value) {
			return nil, fmt.Errorf("unexpected %s %q", f.what, f.value)
		}
	}
	return command{
		"kubectl", "--context=" + q.Get("context"), "--namespace=" + q.Get("namespace"),
		"exec", "--container=" + q.Get("container"), "-i", pod, "--", "buildctl", "dial-stdio",
	}, nil
}

func ssh(u *url.URL) (command, error) {
	if u.Hostname() == "" {
		return nil, errors.New("no host specified")
	}
	if _, ok := u.User.Password(); ok {
		return nil, errors.New("plain-text password is not supported")
	}
	if u.RawQuery != "" {
		return nil, fmt.Errorf("extra query after the host: %q", u.RawQuery)
	}
	if u.Fragment != "" {
		return nil, fmt.Errorf("extra fragment after the host: %q", u.Fragment)
	}
	cmd := command{"ssh"}
	if name := u.User.Username(); name != "" {
		cmd = append(cmd, "-l", name)
	}
	if port := u.Port(); port != "" {
		cmd = append(cmd, "-p", port)
	}
	cmd = append(cmd, "--", u.Hostname(), "buildctl")
	if u.Path != "" && u.Path != "/" {
		cmd = append(cmd, "--addr", "unix://"+u.Path)
	}
	return append(cmd, "dial-stdio"), nil
}
