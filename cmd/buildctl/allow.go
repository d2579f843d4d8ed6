package main

import "github.com/openbuildkit/buildkit/api/entitlement"

// parseAllow checks the values of --allow.
func parseAllow(values []string) ([]string, error) {
	for _, value := range values {
		if _, err := entitlement.Parse(value); err != nil {
			return nil, err
		}
	}
	return values, nil
}
