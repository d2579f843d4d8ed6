package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/openbuildkit/buildkit/client"
)

func newWorkersCommand(a *app) *cobra.Command {
	var (
		filters []string
		verbose bool
		format  string
	)
	cmd := &cobra.Command{
		Use:   "workers",
		Short: "list workers",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tmpl, err := parseFormat(format)
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			workers, err := c.ListWorkers(cmd.Context(), filters...)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case format != "":
				return printFormat(out, tmpl, workers)
			case verbose:
				return printWorkers(out, workers)
			}
			t := newTable(out)
			fmt.Fprintln(t, "ID\tPLATFORMS")
			for _, w := range workers {
				fmt.Fprintf(t, "%s\t%s\n", w.ID, platformList(w.Platforms))
			}
			return t.Flush()
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&filters, "filter", "f", nil, "containerd-style filter string slice")
	f.BoolVarP(&verbose, "verbose", "v", false, "Verbose output")
	f.StringVar(&format, "format", "", formatFlag)
	return cmd
}

func platformList(list []ocispec.Platform) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = platforms.FormatAll(platforms.Normalize(p))
	}
	return strings.Join(names, ",")
}

// printWorkers prints all that is known of workers, each followed by an empty line.
func printWorkers(w io.Writer, workers []client.WorkerInfo) error {
	for _, info := range workers {
		t := newTable(w)
		fmt.Fprintf(t, "ID:\t%s\n", info.ID)
		fmt.Fprintf(t, "Platforms:\t%s\n", platformList(info.Platforms))
		printVersion(t, info.BuildkitVersion)
		fmt.Fprintln(t, "Labels:")
		for _, key := range slices.Sorted(maps.Keys(info.Labels)) {
			fmt.Fprintf(t, "\t%s:\t%s\n", key, info.Labels[key])
		}
		printDevices(t, info.CDIDevices)
		for i, p := range info.GCPolicy {
			printGCPolicy(t, i, p)
		}
		fmt.Fprintln(t)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func printDevices(w io.Writer, devices []client.CDIDevice) {
	if len(devices) == 0 {
		return
	}
	fmt.Fprintln(w, "Devices:")
	for _, d := range devices {
		fmt.Fprintf(w, "\tName:\t%s\n", d.Name)
		if d.OnDemand {
			fmt.Fprintf(w, "\tOnDemand:\t%v\n", d.OnDemand)
		} else {
			fmt.Fprintf(w, "\tAutoAllow:\t%v\n", d.AutoAllow)
		}
		for _, key := range slices.Sorted(maps.Keys(d.Annotations)) {
			fmt.Fprintf(w, "\tAnnotations:\t%s=%s\n", key, d.Annotations[key])
		}
	}
}

func printGCPolicy(w io.Writer, i int, p client.GCPolicy) {
	fmt.Fprintf(w, "GC Policy rule#%d:\n", i)
	fmt.Fprintf(w, "\tAll:\t%v\n", p.All)
	if len(p.Filter) > 0 {
		fmt.Fprintf(w, "\tFilters:\t%s\n", strings.Join(p.Filter, " "))
	}
	if p.KeepDuration > 0 {
		fmt.Fprintf(w, "\tKeep duration:\t%v\n", p.KeepDuration)
	}
	for _, space := range []struct {
		name  string
		bytes int64
	}{
		{"Reserved space", p.ReservedSpace},
		{"Minimum free space", p.MinFreeSpace},
		{"Maximum used space", p.MaxUsedSpace},
	} {
		if space.bytes > 0 {
			fmt.Fprintf(w, "\t%s:\t%s\n", space.name, size(space.bytes))
		}
	}
}
