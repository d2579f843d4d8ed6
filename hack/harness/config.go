package harness

import (
	"time"

	"github.com/pelletier/go-toml/v2"
	"google.golang.org/grpc/backoff"
)

// quick makes a connection to a daemon that is starting try often.
var quick = backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, Jitter: 0.1, MaxDelay: 200 * time.Millisecond}

type table = map[string]any

// config returns the text of the daemon's configuration: the harness's own, with what the test
// asked for laid over it.
func (d *Daemon) config() ([]byte, error) {
	config := table{
		"worker": table{
			"oci": table{
				// Tests that want garbage collection say so; it would change what others see.
				"gc": false,
				// Where the leak check looks for cgroups.
				"defaultCgroupParent": "/" + d.marker,
			},
			"containerd": table{"enabled": false},
		},
	}
	if d.options.Registry != nil {
		host := d.options.Registry.Host
		config["registry"] = table{
			"docker.io": table{"mirrors": []string{host}},
			host:        table{"http": true},
		}
	}
	wanted := table{}
	if err := toml.Unmarshal([]byte(d.options.Config), &wanted); err != nil {
		return nil, err
	}
	overlay(config, wanted)
	return toml.Marshal(config)
}

// overlay sets in base what is in over, table by table.
func overlay(base, over table) {
	for key, value := range over {
		lower, below := base[key].(table)
		upper, above := value.(table)
		if below && above {
			overlay(lower, upper)
			continue
		}
		base[key] = value
	}
}
