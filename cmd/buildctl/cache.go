package main

import (
	"errors"
	"strconv"
	"strings"

	"github.com/containerd/log"

	"github.com/openbuildkit/buildkit/client"
)

// lookupEnv is os.LookupEnv or, in tests, something like it.
type lookupEnv = func(string) (string, bool)

// parseExportCaches reads the values of --export-cache.
func parseExportCaches(values []string, env lookupEnv) ([]client.CacheOption, error) {
	return parseCaches("--export-cache", values, env, func(attrs map[string]string) {
		if _, ok := attrs["mode"]; !ok {
			attrs["mode"] = "min"
		}
	})
}

// parseImportCaches reads the values of --import-cache.
func parseImportCaches(values []string, env lookupEnv) ([]client.CacheOption, error) {
	return parseCaches("--import-cache", values, env, func(map[string]string) {})
}

func parseCaches(flag string, values []string, env lookupEnv, complete func(map[string]string)) ([]client.CacheOption, error) {
	var out []client.CacheOption
	for _, value := range values {
		attrs := map[string]string{"type": "registry", "ref": value}
		if strings.Contains(value, "type=") {
			var err error
			if attrs, err = parseCSV(value); err != nil {
				return nil, err
			}
		} else {
			log.L.Warnf("%s <ref> is deprecated. Please use %s type=registry,ref=<ref>,<opt>=<optval>[,<opt>=<optval>] instead", flag, flag)
		}
		kind := attrs["type"]
		if kind == "" {
			return nil, errors.New(flag + " requires type=<type>")
		}
		delete(attrs, "type")
		complete(attrs)
		if kind == "gha" {
			if err := completeGHA(attrs, env); err != nil {
				return nil, err
			}
		}
		out = append(out, client.CacheOption{Type: kind, Attrs: attrs})
	}
	return out, nil
}

// completeGHA takes what is missing from the environment of a GitHub action.
func completeGHA(attrs map[string]string, env lookupEnv) error {
	version, ok := attrs["version"]
	if !ok {
		if v, _ := env("ACTIONS_CACHE_SERVICE_V2"); isTrue(v) {
			version = "2"
		}
	}
	setDefault := func(key string, names ...string) {
		if _, ok := attrs[key]; ok {
			return
		}
		for _, name := range names {
			if v, ok := env(name); ok && v != "" {
				attrs[key] = v
				return
			}
		}
	}
	if version == "2" {
		setDefault("url_v2", "ACTIONS_RESULTS_URL")
	}
	setDefault("url", "ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL")
	if attrs["url"] == "" && attrs["url_v2"] == "" {
		return errors.New("cache with type gha requires url parameter to be set")
	}
	setDefault("token", "ACTIONS_RUNTIME_TOKEN")
	if attrs["token"] == "" {
		return errors.New("cache with type gha requires token parameter or $ACTIONS_RUNTIME_TOKEN")
	}
	return nil
}

func isTrue(s string) bool {
	v, err := strconv.ParseBool(s)
	return err == nil && v
}
