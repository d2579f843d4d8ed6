package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tlsFlags are the flags that say how the connection is encrypted.
type tlsFlags struct {
	serverName, caCert, cert, key, dir string
}

// config returns nil if the connection is not encrypted.
func (f tlsFlags) config() (*tls.Config, error) {
	if f.dir != "" {
		if f.caCert != "" || f.cert != "" || f.key != "" {
			return nil, errors.New("cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time")
		}
		for _, file := range []struct {
			path  *string
			names [2]string
		}{
			{&f.caCert, [2]string{"ca.pem", "ca.crt"}},
			{&f.cert, [2]string{"cert.pem", "tls.crt"}},
			{&f.key, [2]string{"key.pem", "tls.key"}},
		} {
			var err error
			if *file.path, err = firstFile(f.dir, file.names); err != nil {
				return nil, err
			}
		}
	}
	if f.caCert == "" && f.cert == "" && f.key == "" {
		return nil, nil
	}
	cfg := &tls.Config{ServerName: f.serverName, MinVersion: tls.VersionTLS12}
	if f.caCert != "" {
		pem, err := os.ReadFile(f.caCert)
		if err != nil {
			return nil, fmt.Errorf("could not read ca certificate: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("failed to append ca certs of %s", f.caCert)
		}
	}
	if (f.cert == "") != (f.key == "") {
		return nil, errors.New("could not read certificate/key: --tlscert and --tlskey need each other")
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("could not read certificate/key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func firstFile(dir string, names [2]string) (string, error) {
	for _, name := range names {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("directory did not contain one of the needed files: %s or %s", names[0], names[1])
}
