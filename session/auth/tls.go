package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
)

// TLSConfig says how to connect to the authorization server of a registry. Files are in PEM.
type TLSConfig struct {
	// RootCAs are files to trust beside what the system trusts.
	RootCAs  []string
	KeyPairs []KeyPair
	Insecure bool
}

// KeyPair is a client certificate.
type KeyPair struct {
	Certificate string
	Key         string
}

// httpClient returns a client for the authorization server of a registry host.
func (p *Provider) httpClient(host string) (*http.Client, error) {
	cfg, ok := p.cfg.TLS[host]
	if !ok {
		return http.DefaultClient, nil
	}
	tlsConfig, err := cfg.load()
	if err != nil {
		return nil, fmt.Errorf("TLS configuration for %s: %w", host, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = tlsConfig
	transport.DisableKeepAlives = true // the client is used once
	return &http.Client{Transport: transport}, nil
}

func (c TLSConfig) load() (*tls.Config, error) {
	out := &tls.Config{InsecureSkipVerify: c.Insecure} //nolint:gosec // the user asks for it
	if len(c.RootCAs) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		for _, file := range c.RootCAs {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			if !pool.AppendCertsFromPEM(data) {
				return nil, fmt.Errorf("no certificate in %s", file)
			}
		}
		out.RootCAs = pool
	}
	for _, pair := range c.KeyPairs {
		cert, err := tls.LoadX509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			return nil, err
		}
		out.Certificates = append(out.Certificates, cert)
	}
	return out, nil
}
