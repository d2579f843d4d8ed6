package document_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cmd/sbom-scanner/internal/catalog"
	"github.com/openbuildkit/buildkit/cmd/sbom-scanner/internal/document"
)

var options = document.Options{Name: "sbom", Created: time.Unix(1700000000, 0), Tool: "sbom-scanner-v1"}

// read returns a document as others read it.
func read(t *testing.T, found *catalog.Inventory) *spdx.Document {
	t.Helper()
	data, err := document.Statement(found, options)
	require.NoError(t, err)
	var s struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []any           `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	require.NoError(t, json.Unmarshal(data, &s))
	require.Equal(t, "https://in-toto.io/Statement/v0.1", s.Type)
	require.Equal(t, "https://spdx.dev/Document", s.PredicateType)
	require.Empty(t, s.Subject)
	doc, err := spdxjson.Read(bytes.NewReader(s.Predicate))
	require.NoError(t, err)
	return doc
}

func TestADocumentHasPackagesWithUrlsLicensesAndEvidence(t *testing.T) {
	found := &catalog.Inventory{
		System: catalog.System{ID: "debian", VersionID: "12", Name: "Debian"},
		Files:  []catalog.File{{Path: "var/lib/dpkg/status", SHA1: strings.Repeat("a", 40), SHA256: strings.Repeat("b", 64)}},
		Unread: []string{"x: damaged"},
	}
	want := map[string]string{}
	for _, p := range []struct {
		catalog.Package
		url string
	}{
		{catalog.Package{Type: catalog.Deb, Name: "libc6", Version: "2.36-9+deb12u4", Arch: "amd64", Source: "glibc", Evidence: "var/lib/dpkg/status"}, "pkg:deb/debian/libc6@2.36-9+deb12u4?arch=amd64&distro=debian-12&upstream=glibc"},
		{catalog.Package{Type: catalog.RPM, Name: "shadow", Version: "4-1", Epoch: "2", Evidence: "r"}, "pkg:rpm/debian/shadow@4-1?distro=debian-12&epoch=2"},
		{catalog.Package{Type: catalog.Go, Name: "golang.org/x/sys", Version: "v0.1.0", Evidence: "bin/a"}, "pkg:golang/golang.org/x/sys@v0.1.0"},
		{catalog.Package{Type: catalog.Go, Name: "stdlib", Version: "1.22", Evidence: "bin/a"}, "pkg:golang/stdlib@1.22"},
		{catalog.Package{Type: catalog.NPM, Name: "@types/node", Version: "20.1.0", License: "MIT", Evidence: "p"}, "pkg:npm/%40types/node@20.1.0"},
		{catalog.Package{Type: catalog.Python, Name: "Old_Name", Version: "1.0", License: "the MIT one", Evidence: "m"}, "pkg:pypi/old-name@1.0"},
	} {
		found.Packages = append(found.Packages, p.Package)
		want[p.Name] = p.url
	}
	doc := read(t, found)
	require.Equal(t, "SPDX-2.3", doc.SPDXVersion)
	require.Equal(t, "2023-11-14T22:13:20Z", doc.CreationInfo.Created)
	require.Contains(t, doc.DocumentComment, "x: damaged")
	got := map[string]string{}
	for _, p := range doc.Packages[1:] {
		require.Len(t, p.PackageExternalReferences, 1)
		require.Equal(t, "purl", p.PackageExternalReferences[0].RefType)
		got[p.PackageName] = p.PackageExternalReferences[0].Locator
		switch p.PackageName {
		case "@types/node":
			require.Equal(t, "MIT", p.PackageLicenseDeclared)
		case "Old_Name":
			require.Equal(t, "NOASSERTION", p.PackageLicenseDeclared)
			require.Equal(t, "declared as: the MIT one", p.PackageLicenseComments)
		}
	}
	require.Equal(t, want, got)
	require.Len(t, doc.Files, 1)
	require.Equal(t, "/var/lib/dpkg/status", doc.Files[0].FileName)
	kinds := map[string]int{}
	ids := map[string]bool{"DOCUMENT": true}
	for _, p := range doc.Packages {
		require.False(t, ids[string(p.PackageSPDXIdentifier)], "an identifier stands for one thing")
		ids[string(p.PackageSPDXIdentifier)] = true
	}
	ids[string(doc.Files[0].FileSPDXIdentifier)] = true
	for _, r := range doc.Relationships {
		kinds[r.Relationship]++
		require.True(t, ids[string(r.RefA.ElementRefID)] && ids[string(r.RefB.ElementRefID)])
	}
	require.Equal(t, map[string]int{"DESCRIBES": 1, "CONTAINS": 6, "OTHER": 1}, kinds)
	require.Equal(t, doc, read(t, found), "the same tree gives the same document")
	found.Packages[0].Version = "2.36-10"
	require.NotEqual(t, doc.DocumentNamespace, read(t, found).DocumentNamespace)
}

func TestLicensesAreDeclaredIfTheyAreExpressions(t *testing.T) {
	for text, want := range map[string]bool{
		"MIT": true, "MIT AND (Apache-2.0 OR GPL-2.0-only WITH Classpath-exception-2.0)": true, "EPL-2.0+": true,
		"MIT License": false, "MIT AND": false, "(MIT": false, "MIT)": false, "WITH MIT": false, "GPL": false,
		"MIT WITH nothing": false, strings.Repeat("(", 10000) + "MIT": false, "AND": false,
	} {
		doc := read(t, &catalog.Inventory{Packages: []catalog.Package{{Type: catalog.APK, Name: "a", License: text}}})
		require.Equal(t, want, doc.Packages[1].PackageLicenseDeclared == text, "%.40s", text)
	}
}

func TestAnEmptyTreeHasADocumentToo(t *testing.T) {
	doc := read(t, &catalog.Inventory{})
	require.Len(t, doc.Packages, 1)
	require.Empty(t, doc.DocumentComment)
}

func TestADocumentThatBuildersWouldNotTakeIsAnError(t *testing.T) {
	found := &catalog.Inventory{Packages: []catalog.Package{{Type: catalog.Deb, Name: "n"}}}
	small := options
	small.MaxSize = 1000
	_, err := document.Statement(found, small)
	require.EqualError(t, err, "the document about 1 packages has more than 1000 bytes")
}

func FuzzDocument(f *testing.F) {
	f.Add("golang", "a/b", "1", "MIT", "debian")
	f.Fuzz(func(t *testing.T, typ, name, version, license, system string) {
		found := &catalog.Inventory{
			System:   catalog.System{ID: system, VersionID: version},
			Packages: []catalog.Package{{Type: catalog.Type(typ), Name: name, Version: version, License: license, Arch: system, Source: name}},
		}
		data, err := document.Statement(found, options)
		if err == nil && !json.Valid(data) {
			t.Errorf("not JSON: %s", data)
		}
	})
}

// relationships are those of SPDX 2.3 that this project writes.
var relationships = []string{"DESCRIBES", "CONTAINS", "OTHER"}

// requireSPDX holds a document against the schema that is published for SPDX 2.3: what is required is
// there, ids have their form, are unique, and what refers to one finds it.
func requireSPDX(t *testing.T, data []byte) {
	t.Helper()
	type checksum struct{ Algorithm, ChecksumValue string }
	var doc struct {
		SPDXVersion, DataLicense, SPDXID, Name, DocumentNamespace string
		CreationInfo                                              struct {
			Created  string
			Creators []string
		}
		Packages []struct {
			SPDXID, Name, DownloadLocation, LicenseConcluded, LicenseDeclared, CopyrightText string
			FilesAnalyzed                                                                    *bool
			PackageVerificationCode                                                          *struct{ PackageVerificationCodeValue string }
			HasFiles, LicenseInfoFromFiles                                                   []string
			ExternalRefs                                                                     []struct{ ReferenceCategory, ReferenceType, ReferenceLocator string }
		}
		Files []struct {
			SPDXID, FileName, LicenseConcluded, CopyrightText string
			Checksums                                         []checksum
		}
		Relationships []struct{ SpdxElementID, RelationshipType, RelatedSpdxElement string }
	}
	require.NoError(t, json.Unmarshal(data, &doc))
	require.Equal(t, "SPDX-2.3", doc.SPDXVersion)
	require.Equal(t, "CC0-1.0", doc.DataLicense)
	require.Equal(t, "SPDXRef-DOCUMENT", doc.SPDXID)
	require.NotEmpty(t, doc.Name)
	require.Regexp(t, `^https?://[^#]+$`, doc.DocumentNamespace)
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`, doc.CreationInfo.Created)
	for _, c := range doc.CreationInfo.Creators {
		require.Regexp(t, `^(Tool|Organization|Person): .+`, c)
	}
	require.NotEmpty(t, doc.CreationInfo.Creators)
	ids := map[string]bool{doc.SPDXID: true}
	add := func(id string) {
		require.Regexp(t, `^SPDXRef-[a-zA-Z0-9.-]+$`, id)
		require.False(t, ids[id], "%s is there twice", id)
		ids[id] = true
	}
	for _, p := range doc.Packages {
		add(p.SPDXID)
		require.NotEmpty(t, p.Name)
		require.NotEmpty(t, p.DownloadLocation, "required")
		if p.FilesAnalyzed != nil && !*p.FilesAnalyzed {
			require.Nil(t, p.PackageVerificationCode)
			require.Empty(t, p.LicenseInfoFromFiles)
			require.Empty(t, p.HasFiles)
		} else {
			require.NotNil(t, p.PackageVerificationCode, "%s: files were analyzed, it says", p.Name)
		}
		for _, r := range p.ExternalRefs {
			require.Contains(t, []string{"PACKAGE-MANAGER", "PACKAGE_MANAGER", "SECURITY", "OTHER"}, r.ReferenceCategory)
			require.Regexp(t, `^\S+$`, r.ReferenceLocator)
			require.NotEmpty(t, r.ReferenceType)
		}
	}
	for _, f := range doc.Files {
		add(f.SPDXID)
		require.NotEmpty(t, f.FileName)
		require.True(t, slices.ContainsFunc(f.Checksums, func(c checksum) bool { return c.Algorithm == "SHA1" && len(c.ChecksumValue) == 40 }), "SHA1 is required of files")
	}
	described := false
	for _, r := range doc.Relationships {
		require.True(t, ids[r.SpdxElementID], r.SpdxElementID)
		require.True(t, ids[r.RelatedSpdxElement], r.RelatedSpdxElement)
		require.Contains(t, relationships, r.RelationshipType)
		described = described || r.SpdxElementID == doc.SPDXID && r.RelationshipType == "DESCRIBES"
	}
	require.True(t, described, "a document describes something")
}

// properties are those that the schema of SPDX 2.3 knows: it allows no others.
var properties = map[string]string{
	"document": "SPDXID annotations comment creationInfo dataLicense externalDocumentRefs hasExtractedLicensingInfos name revieweds " +
		"spdxVersion documentNamespace documentDescribes packages files snippets relationships",
	"creationInfo": "comment created creators licenseListVersion",
	"packages": "SPDXID annotations attributionTexts builtDate checksums comment copyrightText description downloadLocation externalRefs " +
		"filesAnalyzed hasFiles homepage licenseComments licenseConcluded licenseDeclared licenseInfoFromFiles name originator packageFileName " +
		"packageVerificationCode primaryPackagePurpose releaseDate sourceInfo summary supplier validUntilDate versionInfo",
	"externalRefs": "comment referenceCategory referenceLocator referenceType",
	"files": "SPDXID annotations artifactOfs attributionTexts checksums comment copyrightText fileContributors fileDependencies fileName " +
		"fileTypes licenseComments licenseConcluded licenseInfoInFiles noticeText",
	"checksums":     "algorithm checksumValue",
	"relationships": "spdxElementId comment relatedSpdxElement relationshipType",
}

// requireProperties fails if anything has a property that the schema does not know.
func requireProperties(t *testing.T, name string, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			require.Contains(t, strings.Fields(properties[name]), key, "of %s", name)
			requireProperties(t, key, value)
		}
	case []any:
		for _, e := range v {
			requireProperties(t, name, e)
		}
	}
}

func TestDocumentsAreValid(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for name, found := range map[string]*catalog.Inventory{
		"nothing": {},
		"odd names": {
			Files: []catalog.File{{Path: "a b/ü", SHA1: strings.Repeat("a", 40), SHA256: strings.Repeat("b", 64)}, {Path: "a_b", SHA1: strings.Repeat("a", 40)}},
			Packages: []catalog.Package{
				{Type: catalog.Deb, Name: "a+b", Version: "1:2~3", Evidence: "a b/ü"},
				{Type: catalog.Deb, Name: "a-b", Version: "1:2~3", Evidence: "a b/ü"},
				{Type: catalog.Deb, Name: "a-b", Version: "1:2~3", Evidence: "a_b"},
				{Type: catalog.NPM, Name: "@x/" + long, Evidence: "gone"},
				{Type: catalog.Python, Name: "ü\n\"", Version: "\x00", License: "(MIT"},
				{Type: catalog.Go, Name: "m", Version: "v1 v2"},
			},
			Unread: []string{"x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := document.Statement(found, options)
			require.NoError(t, err)
			var s struct{ Predicate json.RawMessage }
			require.NoError(t, json.Unmarshal(data, &s))
			requireSPDX(t, s.Predicate)
			var all any
			require.NoError(t, json.Unmarshal(s.Predicate, &all))
			requireProperties(t, "document", all)
		})
	}
}
