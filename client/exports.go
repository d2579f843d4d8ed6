package client

import (
	"fmt"
	"maps"
	"os"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/session/filesync"
)

// Exporter types that send their output to the client.
const (
	ExporterLocal  = "local"
	ExporterTar    = "tar"
	ExporterOCI    = "oci"
	ExporterDocker = "docker"
)

const (
	modeAttr   = "mode"
	modeDelete = "delete"
)

// planExports checks exports and returns where the session puts their outputs.
func planExports(exports []Export) (map[int]filesync.Output, error) {
	outputs := map[int]filesync.Output{}
	for i, e := range exports {
		switch e.Type {
		case ExporterLocal:
			if e.OutputDir == "" {
				return nil, fmt.Errorf("output directory is required for %s exporter", e.Type)
			}
			if e.Output != nil {
				return nil, fmt.Errorf("output file writer is not supported by %s exporter", e.Type)
			}
			outputs[i] = filesync.Output{Dir: e.OutputDir, Delete: e.Attrs[modeAttr] == modeDelete}
		case ExporterTar, ExporterOCI, ExporterDocker:
			if e.OutputDir != "" {
				return nil, fmt.Errorf("output directory is not supported by %s exporter", e.Type)
			}
			if e.Output == nil {
				return nil, fmt.Errorf("output file writer is required for %s exporter", e.Type)
			}
			outputs[i] = filesync.Output{Open: e.Output}
		default:
			if e.Output != nil || e.OutputDir != "" {
				return nil, fmt.Errorf("output is not supported by %s exporter", e.Type)
			}
		}
	}
	return outputs, nil
}

// makeOutputDirs makes the directories of outputs that are still missing.
func makeOutputDirs(outputs map[int]filesync.Output) error {
	for _, o := range outputs {
		if o.Dir == "" {
			continue
		}
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func encodeExports(exports []Export) []*controlpb.Exporter {
	var out []*controlpb.Exporter
	for _, e := range exports {
		out = append(out, &controlpb.Exporter{Type: e.Type, Attrs: maps.Clone(e.Attrs)})
	}
	return out
}
