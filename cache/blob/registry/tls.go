package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// tlsConfig reads the files that the configuration of host names.
func (h HostConfig) tlsConfig(host string) (*tls.Config, error) {
	cas, pairs := slices.Clone(h.CAs), slices.Clone(h.KeyPairs)
	for _, dir := range h.TLSConfigDirs {
		dirCAs, dirPairs := readTLSDir(dir)
		cas, pairs = append(cas, dirCAs...), append(pairs, dirPairs...)
	}
	cfg := &tls.Config{InsecureSkipVerify: h.Insecure}
	if len(cas) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("registry %s: load the system's certificates: %w", host, err)
		}
		for _, name := range cas {
			pem, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("registry %s: read CA: %w", host, err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("registry %s: no certificate in %s", host, name)
			}
		}
		cfg.RootCAs = pool
	}
	for _, p := range pairs {
		cert, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
		if err != nil {
			return nil, fmt.Errorf("registry %s: load key pair %s, %s: %w", host, p.Certificate, p.Key, err)
		}
		cfg.Certificates = append(cfg.Certificates, cert)
	}
	return cfg, nil
}

// readTLSDir lists the certificates of a folder; none if it cannot be read.
func readTLSDir(dir string) (cas []string, pairs []KeyPair) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if strings.HasSuffix(name, ".crt") {
			cas = append(cas, name)
		}
		if base, ok := strings.CutSuffix(name, ".cert"); ok {
			pairs = append(pairs, KeyPair{Certificate: name, Key: base + ".key"})
		}
	}
	return cas, pairs
}
