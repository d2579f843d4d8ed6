package main

import (
	"fmt"
	"strings"
)

const (
	buildArgPrefix  = "build-arg:"
	sourceDateEpoch = "SOURCE_DATE_EPOCH"
)

// parseOpts reads the values of --opt. Of several with one key the last counts. A build argument
// without a value takes it from the environment.
func parseOpts(values []string, lookupEnv func(string) (string, bool)) (map[string]string, error) {
	attrs := map[string]string{}
	if v, ok := lookupEnv(sourceDateEpoch); ok {
		attrs[buildArgPrefix+sourceDateEpoch] = v
	}
	for _, value := range values {
		key, v, ok := strings.Cut(value, "=")
		if !ok {
			name, isArg := strings.CutPrefix(key, buildArgPrefix)
			if !isArg {
				return nil, invalidValue(value)
			}
			if v, ok = lookupEnv(name); !ok {
				continue
			}
		}
		attrs[key] = v
	}
	return attrs, nil
}

// invalidValue is the error of a value that is not of the form key=value.
func invalidValue(value string) error { return fmt.Errorf("invalid value %s", value) }
