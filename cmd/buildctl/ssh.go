package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/openbuildkit/buildkit/session/ssh"
)

// parseSSH reads the values of --ssh: id[=path[,path...][,raw=bool]].
func parseSSH(values []string) (*ssh.Provider, error) {
	configs := make([]ssh.AgentConfig, len(values))
	for i, value := range values {
		id, paths, ok := strings.Cut(value, "=")
		configs[i].ID = id
		if !ok || paths == "" {
			continue
		}
		for _, p := range strings.Split(paths, ",") {
			raw, isRaw := strings.CutPrefix(p, "raw=")
			if !isRaw {
				configs[i].Paths = append(configs[i].Paths, p)
				continue
			}
			var err error
			if configs[i].Raw, err = strconv.ParseBool(raw); err != nil {
				return nil, fmt.Errorf("invalid value %q of raw in %q", raw, value)
			}
		}
		if configs[i].Raw && len(configs[i].Paths) != 1 {
			return nil, fmt.Errorf("raw mode must supply exactly one socket path for %q", id)
		}
	}
	return ssh.NewProvider(configs)
}
