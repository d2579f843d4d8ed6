package document

import (
	"strings"

	"github.com/package-url/packageurl-go"

	"github.com/openbuildkit/buildkit/cmd/sbom-scanner/internal/catalog"
)

// packageURL returns the url of a package in a system.
func packageURL(p catalog.Package, system catalog.System) string {
	namespace, name := "", p.Name
	var qualifiers packageurl.Qualifiers
	qualify := func(key, value string) {
		if value != "" {
			qualifiers = append(qualifiers, packageurl.Qualifier{Key: key, Value: value})
		}
	}
	switch p.Type {
	case catalog.Deb, catalog.APK, catalog.RPM:
		namespace = system.ID
		qualify("arch", p.Arch)
		qualify("distro", distro(system))
		qualify("epoch", p.Epoch)
		qualify("upstream", p.Source)
	case catalog.Python:
		// https://packaging.python.org/en/latest/specifications/name-normalization/
		name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	case catalog.Go, catalog.NPM:
		if i := strings.LastIndex(name, "/"); i >= 0 {
			namespace, name = name[:i], name[i+1:]
		}
	}
	return packageurl.NewPackageURL(string(p.Type), namespace, name, p.Version, qualifiers, "").ToString()
}

// distro returns a system as urls name it, such as debian-12.
func distro(s catalog.System) string {
	if s.ID == "" || s.VersionID == "" {
		return s.ID
	}
	return s.ID + "-" + s.VersionID
}
