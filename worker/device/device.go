// Package device knows the devices of the host that steps may ask for by name. They are described
// by files of the Container Device Interface (CDI), which vendors and administrators write: what a
// container needs of the host for a device, as nodes, variables, mounts and hooks.
//
// Files are read again when they have changed, whenever somebody asks. Who may use a device is
// package entitlement's to decide; here is only said which ones are for everybody.
//
// The format is that of https://github.com/cncf-tags/container-device-interface.
package device

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Annotations of devices, or of all devices in a file.
const (
	// ClassAnnotation is a name that several devices share.
	ClassAnnotation = "org.mobyproject.buildkit.device.class"
	// AutoAllowAnnotation, if true, lets everybody use the device.
	AutoAllowAnnotation = "org.mobyproject.buildkit.device.autoallow"
)

// Config is where devices are described.
type Config struct {
	// SpecDirs are folders with files of CDI, the last one wins. They need not exist.
	SpecDirs []string
	// AutoAllowed are names of devices that everybody may use: vendor/class=name, or vendor/class for
	// all of a class.
	AutoAllowed []string
}

// Device is a device of the host.
type Device struct {
	// Name is vendor/class=name.
	Name string
	// AutoAllow tells that everybody may use it.
	AutoAllow   bool
	Annotations map[string]string
}

// Registry finds devices. The nil Registry has none. Methods may be called concurrently.
type Registry struct {
	conf  Config
	cache *cdi.Cache

	mu sync.Mutex
	// seen is what the folders were like when they were read.
	seen    string
	devices []Device
}

// New returns a Registry. It does not read the folders.
func New(conf Config) (*Registry, error) {
	for _, name := range conf.AutoAllowed {
		kind, _, _ := strings.Cut(name, "=")
		if vendor, class := parser.ParseQualifier(kind); vendor == "" || parser.ValidateVendorName(vendor) != nil || parser.ValidateClassName(class) != nil {
			return nil, fmt.Errorf("device %q that is allowed for everybody: neither vendor/class=name nor vendor/class", name)
		}
	}
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs())
	if err != nil {
		return nil, err
	}
	return &Registry{conf: conf, cache: cache}, nil
}

// List returns all devices, sorted by name. The caller does not change them.
func (r *Registry) List() []Device {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	return r.devices
}

// Find returns the devices that a name stands for: vendor/class=name is one, vendor/class=* are all
// of the class and vendor/class is the first of them; any other name is the class that annotations
// give. Nil if there is none.
func (r *Registry) Find(name string) []Device { return find(r.List(), name) }

func find(all []Device, name string) []Device {
	var found []Device
	kind, device, one := strings.Cut(name, "=")
	for _, d := range all {
		k, _, _ := strings.Cut(d.Name, "=")
		switch {
		case d.Name == name, k == kind && one && device == "*":
			found = append(found, d)
		case k == kind && !one:
			return []Device{d}
		case !strings.ContainsAny(name, "/=") && name != "" && d.Annotations[ClassAnnotation] == name:
			found = append(found, d)
		}
	}
	return found
}

// NotRegisteredError says that there is no device of a name that a step cannot do without.
type NotRegisteredError struct{ Name string }

func (e *NotRegisteredError) Error() string {
	return fmt.Sprintf("required device %q is not registered", e.Name)
}

// Inject adds devices to the specification of a container. Optional ones that are not there are left
// out; another one is a *NotRegisteredError.
func (r *Registry) Inject(s *specs.Spec, devices []*pb.CDIDevice) error {
	all := r.List()
	var names []string
	for _, d := range devices {
		found := find(all, d.GetName())
		if len(found) == 0 && !d.GetOptional() {
			return &NotRegisteredError{d.GetName()}
		}
		for _, f := range found {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	if unknown, err := r.cache.InjectDevices(s, names...); len(unknown) > 0 {
		return &NotRegisteredError{unknown[0]} // it has gone just now
	} else if err != nil {
		return fmt.Errorf("device %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

// refresh reads the folders again if they have changed.
func (r *Registry) refresh() {
	seen := fingerprint(r.conf.SpecDirs)
	if seen == r.seen && r.devices != nil {
		return
	}
	r.seen = seen
	r.devices = []Device{}
	if len(r.conf.SpecDirs) == 0 {
		return // the library would take its own
	}
	// Errors are of single files, which are told below; the others count.
	_ = r.cache.Configure(cdi.WithSpecDirs(r.conf.SpecDirs...))
	for _, file := range slices.Sorted(maps.Keys(r.cache.GetErrors())) {
		for _, err := range r.cache.GetErrors()[file] {
			log.L.WithError(err).Warnf("devices of %s", file)
		}
	}
	for _, name := range r.cache.ListDevices() {
		d := r.cache.GetDevice(name)
		annotations := maps.Clone(d.GetSpec().Annotations)
		if annotations == nil {
			annotations = map[string]string{}
		}
		maps.Copy(annotations, d.Annotations)
		r.devices = append(r.devices, Device{Name: name, AutoAllow: r.autoAllowed(name, annotations), Annotations: annotations})
	}
}

func (r *Registry) autoAllowed(name string, annotations map[string]string) bool {
	if ok, err := strconv.ParseBool(annotations[AutoAllowAnnotation]); err == nil {
		return ok
	}
	kind, _, _ := strings.Cut(name, "=")
	return slices.ContainsFunc(r.conf.AutoAllowed, func(allowed string) bool {
		return allowed == name || allowed == kind || allowed == kind+"=*"
	})
}

// fingerprint changes with the files that describe devices.
func fingerprint(dirs []string) string {
	var b strings.Builder
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		fmt.Fprintf(&b, "%s %v\n", dir, err)
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext != ".json" && ext != ".yaml" {
				continue
			}
			// Files may be links.
			if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil {
				fmt.Fprintf(&b, "%q %d %d\n", e.Name(), info.Size(), info.ModTime().UnixNano())
			}
		}
	}
	return b.String()
}
