package main

import (
	"fmt"
	"strings"
)

// parseAllow checks the values of --allow: network.host, security.insecure, device, or
// device=<name>[,alias=<name>].
func parseAllow(values []string) ([]string, error) {
	for _, value := range values {
		switch name, _, config := strings.Cut(value, "="); {
		case name == "device":
		case !config && (name == "network.host" || name == "security.insecure"):
		default:
			return nil, fmt.Errorf("unknown entitlement %s", value)
		}
	}
	return values, nil
}
