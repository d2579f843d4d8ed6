package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/docker/cli/cli/config"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/auth"
	"github.com/openbuildkit/buildkit/session/secrets"
)

// attachables returns the services of the session that flags ask for. Events are told when
// credentials are used.
func (b *buildFlags) attachables(events event.Sink) ([]session.Attachable, error) {
	tlsConfigs, err := parseRegistryAuthTLS(b.authTLS)
	if err != nil {
		return nil, err
	}
	out := []session.Attachable{auth.NewProvider(auth.Config{
		Logins:   config.LoadDefaultConfigFile(os.Stderr),
		SeedDir:  config.Dir(),
		TLS:      tlsConfigs,
		Progress: events,
	})}
	if len(b.ssh) > 0 {
		p, err := parseSSH(b.ssh)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(b.secrets) > 0 {
		store, err := parseSecrets(b.secrets)
		if err != nil {
			return nil, err
		}
		out = append(out, secrets.NewProvider(store))
	}
	return out, nil
}

// parseRegistryAuthTLS reads the values of --registry-auth-tlscontext by their hosts. Values for
// one host add up.
func parseRegistryAuthTLS(values []string) (map[string]auth.TLSConfig, error) {
	out := map[string]auth.TLSConfig{}
	for _, value := range values {
		attrs, err := parseCSV(value)
		if err != nil {
			return nil, err
		}
		host := attrs["host"]
		if host == "" {
			return nil, errors.New("--registry-auth-tlscontext requires host=<host>")
		}
		cfg := out[host]
		for key, v := range attrs {
			switch key {
			case "host", "ca", "cert", "key":
			case "insecure":
				if cfg.Insecure, err = strconv.ParseBool(v); err != nil {
					return nil, fmt.Errorf("--registry-auth-tlscontext insecure=%s: %w", v, err)
				}
			default:
				return nil, fmt.Errorf("--registry-auth-tlscontext: unexpected key %q", key)
			}
		}
		ca, cert, key := attrs["ca"], attrs["cert"], attrs["key"]
		switch {
		case (cert == "") != (key == ""):
			return nil, errors.New("--registry-auth-tlscontext requires both cert=<cert> and key=<key>")
		case ca == "" && cert == "" && !cfg.Insecure:
			return nil, errors.New("--registry-auth-tlscontext requires ca=<ca>, cert=<cert> and key=<key>, or insecure=true")
		}
		if ca != "" {
			cfg.RootCAs = append(cfg.RootCAs, ca)
		}
		if cert != "" {
			cfg.KeyPairs = append(cfg.KeyPairs, auth.KeyPair{Certificate: cert, Key: key})
		}
		out[host] = cfg
	}
	return out, nil
}
