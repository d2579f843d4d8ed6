// Package document writes what a catalog found as SPDX 2.3, in the in-toto statement that builders
// collect.
//
// The formats are https://spdx.github.io/spdx-spec/v2.3 and
// https://github.com/in-toto/attestation/tree/main/spec. Package urls follow
// https://github.com/package-url/purl-spec.
package document

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/openbuildkit/buildkit/cmd/sbom-scanner/internal/catalog"
)

const (
	statementType = "https://in-toto.io/Statement/v0.1"
	predicateType = "https://spdx.dev/Document"

	// defaultMaxSize is how large a statement may be for builders to take it, in bytes.
	defaultMaxSize = 40 << 20

	unknown = "NOASSERTION"
	// namespace begins the names of documents, which need not be addresses of anything.
	namespace = "https://github.com/openbuildkit/buildkit/sbom/"
)

// Options say what a document is called.
type Options struct {
	// Name is that of the folder that was scanned.
	Name    string
	Created time.Time
	// Tool is who scanned, with its version.
	Tool string
	// MaxSize is how large a statement may be, in bytes; 0 is what builders take.
	MaxSize int
}

// Statement returns the statement about a scanned tree, without subjects: the builder knows those.
func Statement(found *catalog.Inventory, opt Options) ([]byte, error) {
	predicate, err := json.Marshal(Document(found, opt))
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []struct{}      `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{statementType, predicateType, []struct{}{}, predicate})
	if err != nil {
		return nil, err
	}
	if limit := cmp.Or(opt.MaxSize, defaultMaxSize); len(data) > limit {
		return nil, fmt.Errorf("the document about %d packages has more than %d bytes", len(found.Packages), limit)
	}
	return data, nil
}

// Document returns what was found. The same tree gives the same document but for the time.
func Document(found *catalog.Inventory, opt Options) *spdx.Document {
	w := &writer{system: found.System, files: map[string]common.ElementID{}}
	w.root(opt.Name)
	for _, f := range found.Files {
		w.file(f)
	}
	for _, p := range found.Packages {
		w.pkg(p)
	}
	doc := &w.doc
	doc.SPDXVersion = spdx.Version
	doc.DataLicense = spdx.DataLicense
	doc.SPDXIdentifier = "DOCUMENT"
	doc.DocumentName = opt.Name
	doc.DocumentNamespace = namespace + opt.Name + "-" + w.hash()
	doc.DocumentComment = comment(found)
	doc.CreationInfo = &spdx.CreationInfo{
		Created:  opt.Created.UTC().Format(time.RFC3339),
		Creators: []common.Creator{{CreatorType: "Tool", Creator: opt.Tool}},
	}
	return doc
}

// comment tells what is missing; empty if nothing is.
func comment(found *catalog.Inventory) string {
	if len(found.Unread) == 0 {
		return ""
	}
	return "Packages may be missing, as these files could not be read:\n" + strings.Join(found.Unread, "\n")
}

const rootID = common.ElementID("DocumentRoot")

// writer fills a document.
type writer struct {
	system catalog.System
	doc    spdx.Document
	files  map[string]common.ElementID
}

// root describes the tree itself, which contains the packages.
func (w *writer) root(name string) {
	p := &spdx.Package{
		PackageName: name, PackageSPDXIdentifier: rootID, PackageDownloadLocation: unknown,
		PrimaryPackagePurpose: "CONTAINER", PackageComment: w.system.Name,
	}
	w.doc.Packages = append(w.doc.Packages, p)
	w.relate("DOCUMENT", common.TypeRelationshipDescribe, rootID, "")
}

func (w *writer) file(f catalog.File) {
	id := common.ElementID("File-" + short(f.Path))
	w.files[f.Path] = id
	w.doc.Files = append(w.doc.Files, &spdx.File{
		FileName: "/" + f.Path, FileSPDXIdentifier: id,
		Checksums:        []common.Checksum{{Algorithm: common.SHA1, Value: f.SHA1}, {Algorithm: common.SHA256, Value: f.SHA256}},
		LicenseConcluded: unknown, LicenseInfoInFiles: []string{unknown}, FileCopyrightText: unknown,
	})
}

func (w *writer) pkg(p catalog.Package) {
	url := packageURL(p, w.system)
	id := common.ElementID(fmt.Sprintf("Package-%s-%s-%s", p.Type, plain(p.Name), short(url+"\x00"+p.Evidence)))
	out := &spdx.Package{
		PackageName:             p.Name,
		PackageSPDXIdentifier:   id,
		PackageVersion:          p.Version,
		PackageDownloadLocation: unknown,
		PackageLicenseConcluded: unknown,
		PackageLicenseDeclared:  unknown,
		PackageCopyrightText:    unknown,
		PackageSourceInfo:       "found in /" + p.Evidence,
		PackageExternalReferences: []*v2_3.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: url,
		}},
	}
	if isExpression(p.License) {
		out.PackageLicenseDeclared = p.License
	} else if p.License != "" {
		out.PackageLicenseComments = "declared as: " + p.License
	}
	w.doc.Packages = append(w.doc.Packages, out)
	w.relate(rootID, common.TypeRelationshipContains, id, "")
	if file, ok := w.files[p.Evidence]; ok {
		w.relate(id, common.TypeRelationshipOther, file, "evident-by: the file tells of the package")
	}
}

func (w *writer) relate(a common.ElementID, how string, b common.ElementID, comment string) {
	w.doc.Relationships = append(w.doc.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(a)), RefB: common.MakeDocElementID("", string(b)),
		Relationship: how, RelationshipComment: comment,
	})
}

// hash tells documents of different contents apart.
func (w *writer) hash() string {
	h := sha256.New()
	for _, p := range w.doc.Packages {
		fmt.Fprintf(h, "%s\n", p.PackageSPDXIdentifier)
	}
	for _, f := range w.doc.Files {
		fmt.Fprintf(h, "%s %s\n", f.FileSPDXIdentifier, f.Checksums[1].Value)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// short is a digest that is long enough within one document.
func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// plain returns s with what identifiers may hold.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, s[:min(len(s), 64)])
}
