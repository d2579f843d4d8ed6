package catalog_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cmd/sbom-scanner/internal/catalog"
)

// tree writes files by their paths; those that begin with "->" are links, those with "#!" programs.
func tree(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(text, "->"); ok {
			require.NoError(t, os.Symlink(target, path))
			continue
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	return open(t, dir)
}

func open(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

const debian = `Package: base-files
Status: install ok installed
Architecture: amd64
Version: 12.4+deb12u5
Description: Debian base system miscellaneous files
 Package: not-one
 .
 more

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u4

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1
`

const alpine = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\n\nP:libcrypto3\nV:3.1.4-r5\nA:x86_64\nL:Apache-2.0\no:openssl\n\n"

func TestInstalledPackagesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  []catalog.Package
	}{
		"nothing": {files: map[string]string{"a/b": "c"}},
		"dpkg": {files: map[string]string{"var/lib/dpkg/status": debian}, want: []catalog.Package{
			{Type: catalog.Deb, Name: "base-files", Version: "12.4+deb12u5", Arch: "amd64", Evidence: "var/lib/dpkg/status"},
			{Type: catalog.Deb, Name: "libc6", Version: "2.36-9+deb12u4", Arch: "amd64", Source: "glibc", Evidence: "var/lib/dpkg/status"},
		}},
		"dpkg of distroless images": {files: map[string]string{
			"var/lib/dpkg/status.d/tzdata":         "Package: tzdata\nVersion: 2024a\nArchitecture: all",
			"var/lib/dpkg/status.d/tzdata.md5sums": "Package: sums\n",
		}, want: []catalog.Package{
			{Type: catalog.Deb, Name: "tzdata", Version: "2024a", Arch: "all", Evidence: "var/lib/dpkg/status.d/tzdata"},
		}},
		"apk": {files: map[string]string{"lib/apk/db/installed": alpine}, want: []catalog.Package{
			{Type: catalog.APK, Name: "libcrypto3", Version: "3.1.4-r5", Arch: "x86_64", Source: "openssl", License: "Apache-2.0", Evidence: "lib/apk/db/installed"},
			{Type: catalog.APK, Name: "musl", Version: "1.2.4-r2", Arch: "x86_64", License: "MIT", Evidence: "lib/apk/db/installed"},
		}},
		"npm": {files: map[string]string{
			"app/node_modules/left-pad/package.json":         `{"name":"left-pad","version":"1.3.0","license":"WTFPL"}`,
			"app/node_modules/left-pad/test/package.json":    `{"name":"fixture","version":"1"}`,
			"app/node_modules/@types/node/package.json":      `{"name":"@types/node","version":"20.1.0","license":{"type":"MIT","url":"x"}}`,
			"app/node_modules/@types/node/esm/package.json":  `{"type":"module"}`,
			"app/node_modules/x/node_modules/y/package.json": `{"name":"y","version":"2"}`,
			"app/node_modules/marker/package.json":           `{"type":"module"}`,
			"app/package.json":                               `{"name":"app","version":"0.0.1"}`,
		}, want: []catalog.Package{
			{Type: catalog.NPM, Name: "@types/node", Version: "20.1.0", License: "MIT", Evidence: "app/node_modules/@types/node/package.json"},
			{Type: catalog.NPM, Name: "left-pad", Version: "1.3.0", License: "WTFPL", Evidence: "app/node_modules/left-pad/package.json"},
			{Type: catalog.NPM, Name: "y", Version: "2", Evidence: "app/node_modules/x/node_modules/y/package.json"},
		}},
		"python": {files: map[string]string{
			"lib/python3/site-packages/requests-2.31.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: requests\nVersion: 2.31.0\nLicense: Apache 2.0\n\nName: body\n",
			"lib/python3/dist-packages/old.egg-info/PKG-INFO":              "Name: Old_Name\r\nVersion: 1.0\r\nLicense: " + strings.Repeat("long ", 500) + "\r\n",
			"lib/python3/dist-packages/file-1.egg-info":                    "Name: file\nVersion: 1\nLicense-Expression: MIT\nLicense: see LICENSE\n",
		}, want: []catalog.Package{
			{Type: catalog.Python, Name: "Old_Name", Version: "1.0", Evidence: "lib/python3/dist-packages/old.egg-info/PKG-INFO"},
			{Type: catalog.Python, Name: "file", Version: "1", License: "MIT", Evidence: "lib/python3/dist-packages/file-1.egg-info"},
			{Type: catalog.Python, Name: "requests", Version: "2.31.0", License: "Apache 2.0", Evidence: "lib/python3/site-packages/requests-2.31.0.dist-info/METADATA"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := catalog.Scan(tree(t, tc.files), catalog.Limits{})
			require.NoError(t, err)
			require.Equal(t, tc.want, found.Packages)
			require.Empty(t, found.Unread)
			evidence := map[string]bool{}
			for _, p := range found.Packages {
				evidence[p.Evidence] = true
			}
			require.Len(t, found.Files, len(evidence))
			for _, f := range found.Files {
				require.True(t, evidence[f.Path])
				sum := sha256.Sum256([]byte(tc.files[f.Path]))
				require.Equal(t, hex.EncodeToString(sum[:]), f.SHA256)
			}
		})
	}
}

func TestPackagesOfRPMAreFound(t *testing.T) {
	data, err := os.ReadFile("testdata/rpmdb.sqlite")
	require.NoError(t, err)
	found, err := catalog.Scan(tree(t, map[string]string{"usr/lib/sysimage/rpm/rpmdb.sqlite": string(data), "var/lib/rpm": "->../../usr/lib/sysimage/rpm"}), catalog.Limits{})
	require.NoError(t, err)
	require.Empty(t, found.Unread)
	require.Len(t, found.Packages, 43, "without the key")
	evidence := "usr/lib/sysimage/rpm/rpmdb.sqlite"
	require.Equal(t, []catalog.Package{
		{Type: catalog.RPM, Name: "bash", Version: "5.2.15-3.fc38", Arch: "x86_64", Source: "bash-5.2.15-3.fc38.src", License: "GPL-3.0-or-later", Evidence: evidence},
		{Type: catalog.RPM, Name: "glibc", Version: "2.37-4.fc38", Arch: "x86_64", Source: "glibc-2.37-4.fc38.src", Evidence: evidence},
		{Type: catalog.RPM, Name: "lib00", Version: "1-1", Arch: "noarch", Evidence: evidence},
	}, found.Packages[:3])
	last := found.Packages[42]
	require.Equal(t, "shadow-utils", last.Name)
	require.Equal(t, "2", last.Epoch)
}

func TestModulesOfGoProgramsAreFound(t *testing.T) {
	own, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(own)
	require.NoError(t, err)
	root := tree(t, map[string]string{"usr/bin/script": "#!/bin/sh\n", "usr/bin/cut-off": "#!"})
	for name, data := range map[string][]byte{"usr/bin/program": program, "usr/bin/no-go": program[:1000], "usr/bin/cut-off": program[:len(program)/2]} {
		require.NoError(t, root.WriteFile(name, data, 0o755))
		require.NoError(t, root.Chmod(name, 0o755))
	}
	found, err := catalog.Scan(root, catalog.Limits{})
	require.NoError(t, err)
	versions := map[string]string{}
	for _, p := range found.Packages {
		if p.Evidence == "usr/bin/program" {
			require.Equal(t, catalog.Go, p.Type)
			versions[p.Name] = p.Version
		}
	}
	require.Contains(t, versions, "github.com/openbuildkit/buildkit")
	require.True(t, strings.HasPrefix(versions["stdlib"], "1."), versions["stdlib"])
}

func TestTheSystemIsKnown(t *testing.T) {
	release := "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID='12'\n"
	want := catalog.System{ID: "debian", VersionID: "12", Name: "Debian GNU/Linux 12 (bookworm)"}
	for name, tc := range map[string]struct {
		files map[string]string
		want  catalog.System
	}{
		"none":            {},
		"a file":          {files: map[string]string{"etc/os-release": release}, want: want},
		"a link":          {files: map[string]string{"etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": release}, want: want},
		"a link to root":  {files: map[string]string{"etc/os-release": "->/usr/lib/os-release", "usr/lib/os-release": release}, want: want},
		"a link outside":  {files: map[string]string{"etc/os-release": "->../../../../../../../../etc/os-release"}},
		"a link to a dir": {files: map[string]string{"etc/os-release": "->../usr", "usr/x": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := catalog.Scan(tree(t, tc.files), catalog.Limits{})
			require.NoError(t, err)
			require.Equal(t, tc.want, found.System)
		})
	}
}

func TestHostileTreesAreReadToTheirEnd(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "status"), []byte("Package: outside\nVersion: 1\n"), 0o644))
	root := tree(t, map[string]string{
		"var/lib/dpkg/status":             "->" + outside + "/status",
		"loop/loop":                       "->../loop",
		"out":                             "->" + outside,
		"lib/apk/db/installed":            "P:" + strings.Repeat("x", 3000) + "\nV:1\n\nV:2\n\nP:good\nV:1\n",
		"node_modules/bad/package.json":   `{"name":3}`,
		"node_modules/cut/package.json":   `{"name":"a`,
		"node_modules/large/package.json": `{"name":"a","version":"` + strings.Repeat("x", 5<<20) + `"}`,
		"var/lib/rpm/rpmdb.sqlite":        "SQLite format 3\x00" + strings.Repeat("\x02", 5000),
		"x.dist-info/METADATA":            strings.Repeat("\x00", 1<<20),
	})
	require.NoError(t, root.MkdirAll("node_modules/pipe", 0o755))
	require.NoError(t, unix.Mkfifo(filepath.Join(root.Name(), "node_modules/pipe/package.json"), 0o644))
	require.NoError(t, root.MkdirAll("node_modules/dir/package.json", 0o755))
	found, err := catalog.Scan(root, catalog.Limits{})
	require.NoError(t, err)
	require.Equal(t, []catalog.Package{{Type: catalog.APK, Name: "good", Version: "1", Evidence: "lib/apk/db/installed"}}, found.Packages)
	all := strings.Join(found.Unread, "\n")
	for _, name := range []string{"bad/package.json", "cut/package.json", "large/package.json", "rpmdb.sqlite", "lib/apk/db/installed"} {
		require.Contains(t, all, name)
	}
	require.Len(t, found.Unread, 6)
}

func TestATreeThatIsTooLargeIsAnError(t *testing.T) {
	files := map[string]string{"lib/apk/db/installed": alpine}
	_, err := catalog.Scan(tree(t, files), catalog.Limits{Packages: 1})
	require.EqualError(t, err, "the tree has more than 1 packages")
	_, err = catalog.Scan(tree(t, files), catalog.Limits{Entries: 3})
	require.EqualError(t, err, "the tree has more than 3 files")
	_, err = catalog.Scan(tree(t, files), catalog.Limits{Entries: 4, Packages: 2})
	require.NoError(t, err)
}

func TestManyDamagedFilesAreToldBriefly(t *testing.T) {
	files := map[string]string{}
	for i := range 150 {
		files["node_modules/"+string(bytes.Repeat([]byte{'a' + byte(i%26)}, 1+i/26))+"/package.json"] = "{"
	}
	found, err := catalog.Scan(tree(t, files), catalog.Limits{})
	require.NoError(t, err)
	require.Len(t, found.Unread, 101)
	require.Contains(t, found.Unread, "and more")
}

func TestDatabasesOfRPMAreFoundWhereRPMKeepsThem(t *testing.T) {
	berkeley, err := os.ReadFile("testdata/Packages")
	require.NoError(t, err)
	ndb, err := os.ReadFile("testdata/Packages.db")
	require.NoError(t, err)
	for path, data := range map[string][]byte{
		"var/lib/rpm/Packages": berkeley, "usr/share/rpm/Packages": berkeley, "usr/lib/sysimage/rpm/Packages.db": ndb, "var/lib/rpm/Packages.db": ndb,
	} {
		found, err := catalog.Scan(tree(t, map[string]string{path: string(data), "Packages": "x", "usr/share/Packages.db": "x"}), catalog.Limits{})
		require.NoError(t, err)
		require.Empty(t, found.Unread, path)
		require.Len(t, found.Packages, 4, path)
		require.Equal(t, path, found.Packages[0].Evidence)
		require.Len(t, found.Files, 1)
	}
}

func TestAnUnwrittenLogOfRPMIsTold(t *testing.T) {
	found, err := catalog.Scan(tree(t, map[string]string{"var/lib/rpm/rpmdb.sqlite-wal": "x", "usr/share/rpm/rpmdb.sqlite-wal": ""}), catalog.Limits{})
	require.NoError(t, err)
	require.Equal(t, []string{`"var/lib/rpm/rpmdb.sqlite-wal": what rpm has installed last stands in a log beside its database, which is not read`}, found.Unread)
}

// Lock files say what would be installed, of which there may be nothing.
func TestLockFilesAreNoInstalledPackages(t *testing.T) {
	found, err := catalog.Scan(tree(t, map[string]string{
		"app/package-lock.json":               `{"lockfileVersion":1,"dependencies":{"a":{"version":"1"}}}`,
		"b/package-lock.json":                 `{"lockfileVersion":3,"packages":{"node_modules/a":{"version":"1"}}}`,
		"app/node_modules/.package-lock.json": `{"lockfileVersion":2,"packages":{"node_modules/a":{"version":"1"}}}`,
		"requirements.txt":                    "a==1\n", "go.sum": "a v1 h1:x\n",
	}), catalog.Limits{})
	require.NoError(t, err)
	require.Empty(t, found.Packages)
	require.Empty(t, found.Unread)
}

func TestEveryProgramHasItsModules(t *testing.T) {
	own, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(own)
	require.NoError(t, err)
	root := tree(t, map[string]string{"bin/link": "->a"})
	for _, name := range []string{"bin/a", "bin/b"} {
		require.NoError(t, root.WriteFile(name, program, 0o755))
		require.NoError(t, root.Chmod(name, 0o755))
	}
	found, err := catalog.Scan(root, catalog.Limits{})
	require.NoError(t, err)
	in := map[string]int{}
	for _, p := range found.Packages {
		in[p.Evidence]++
	}
	require.Len(t, in, 2, "and not in a link to one")
	require.Equal(t, in["bin/a"], in["bin/b"])
	require.Len(t, found.Files, 2)
}
