package client

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

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
	tarAttr    = "tar"
	modeAttr   = "mode"
	modeCopy   = "copy"
	modeDelete = "delete"
)

// exportPlan says where the session puts what exporters send.
type exportPlan struct {
	// outputs are files and directories by the index of the exporter.
	outputs map[int]filesync.Output
	// layout is the directory of an OCI layout, empty if there is none.
	layout string
}

// layoutLast moves exports to OCI layouts to the end. The index of a layout is written by what the
// response says, and of several exporters the last is the one that says it.
func layoutLast(exports []Export) []Export {
	sorted := slices.Clone(exports)
	slices.SortStableFunc(sorted, func(a, b Export) int { return cmp.Compare(toLayout(a), toLayout(b)) })
	return sorted
}

func toLayout(e Export) int {
	asTar, err := strconv.ParseBool(e.Attrs[tarAttr])
	if (e.Type == ExporterOCI || e.Type == ExporterDocker) && err == nil && !asTar {
		return 1
	}
	return 0
}

// planExports checks exports.
func planExports(exports []Export) (*exportPlan, error) {
	p := &exportPlan{outputs: map[int]filesync.Output{}}
	for i, e := range exports {
		var err error
		switch e.Type {
		case ExporterLocal:
			err = p.addDir(i, e)
		case ExporterOCI, ExporterDocker:
			if toLayout(e) == 1 {
				err = p.addLayout(e)
				break
			}
			err = p.addFile(i, e)
		case ExporterTar:
			err = p.addFile(i, e)
		default:
			if e.Output != nil || e.OutputDir != "" {
				err = fmt.Errorf("output is not supported by %s exporter", e.Type)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *exportPlan) addDir(i int, e Export) error {
	if err := requireDir(e); err != nil {
		return err
	}
	// The daemon refuses other modes as well, but what is removed here is for this side to know.
	switch mode := e.Attrs[modeAttr]; mode {
	case "", modeCopy, modeDelete:
	default:
		return fmt.Errorf("invalid local exporter mode %q", mode)
	}
	p.outputs[i] = filesync.Output{Dir: e.OutputDir, Delete: e.Attrs[modeAttr] == modeDelete}
	return nil
}

func (p *exportPlan) addLayout(e Export) error {
	if err := requireDir(e); err != nil {
		return err
	}
	if p.layout != "" {
		return fmt.Errorf("only one exporter can write an OCI layout: %s, %s", p.layout, e.OutputDir)
	}
	p.layout = e.OutputDir
	return nil
}

func requireDir(e Export) error {
	if e.OutputDir == "" {
		return fmt.Errorf("output directory is required for %s exporter", e.Type)
	}
	if e.Output != nil {
		return fmt.Errorf("output file writer is not supported by %s exporter", e.Type)
	}
	return nil
}

func (p *exportPlan) addFile(i int, e Export) error {
	if e.OutputDir != "" {
		return fmt.Errorf("output directory is not supported by %s exporter", e.Type)
	}
	if e.Output == nil {
		return fmt.Errorf("output file writer is required for %s exporter", e.Type)
	}
	p.outputs[i] = filesync.Output{Open: e.Output}
	return nil
}

// makeDirs makes the directories that are still missing.
func (p *exportPlan) makeDirs() error {
	for _, o := range p.outputs {
		if o.Dir == "" {
			continue
		}
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return err
		}
	}
	if p.layout != "" {
		return os.MkdirAll(p.layout, 0o755)
	}
	return nil
}

// finish completes what the session has taken.
func (p *exportPlan) finish(response map[string]string) error {
	if p.layout == "" {
		return nil
	}
	return tagLayout(p.layout, response)
}

func encodeExports(exports []Export) []*controlpb.Exporter {
	var out []*controlpb.Exporter
	for _, e := range exports {
		out = append(out, &controlpb.Exporter{Type: e.Type, Attrs: maps.Clone(e.Attrs)})
	}
	return out
}
