//go:build linux

// Package attest turns the attestations of a result into in-toto statements: predicates are read
// from the trees that hold them, bundles are taken apart, subjects get the names and digests of
// what was exported. It checks what frontends hand in, which may be anything, and writes nothing:
// the exporters of images put statements into manifests, those of files write them beside the
// result.
//
// The format is that of https://github.com/in-toto/attestation/tree/main/spec/v1.
package attest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/event"
	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/snapshot"
)

const (
	// StatementType is the type of the statements made here.
	StatementType = "https://in-toto.io/Statement/v1"
	// PredicateSPDX is the type of software bills of materials in SPDX.
	PredicateSPDX = "https://spdx.dev/Document"
	// PredicateProvenance begins the types of provenance, which nobody but the builder states.
	PredicateProvenance = "https://slsa.dev/provenance/"

	// maxFile is how large one file of an attestation may be, in bytes.
	maxFile = 40 << 20
	// maxFiles is how many files a bundle may have.
	maxFiles = 1000
	// maxTotal bounds all that is said of a part of a result, in bytes: it is in memory at once.
	maxTotal = 8 * maxFile
)

// Statement is an in-toto statement.
type Statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []Subject       `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is what a statement is about. Digest has hexadecimal digests by algorithm.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Predicate is one thing said of a part of a result.
type Predicate struct {
	// Name is that of the file it came in or is to be written to, without folders.
	Name string
	Type string
	// Body is a JSON object.
	Body json.RawMessage
	// Metadata is that of the attestation.
	Metadata map[string][]byte

	subjects []exporter.Subject
}

// Options say how predicates are read.
type Options struct {
	Access cache.Access
	// Layers are those of the part in an image, lowest first.
	Layers []ocispec.Descriptor
	// Scope is told of bundles that are empty; zero for nobody.
	Scope event.Scope
}

// Load returns what attestations say. Errors about what they are name the file that is at fault and
// have the code InvalidArgument.
func Load(ctx context.Context, atts []exporter.Attestation, opt Options) ([]Predicate, error) {
	return loadAll(ctx, atts, opt, maxTotal)
}

func loadAll(ctx context.Context, atts []exporter.Attestation, opt Options, limit int) ([]Predicate, error) {
	var all []Predicate
	size := 0
	for _, a := range atts {
		ps, err := load(ctx, a, opt)
		if err != nil {
			return nil, err
		}
		for _, p := range ps {
			if size += len(p.Body); size > limit {
				return nil, invalid("attestation %q: all of a result are larger than %d bytes", p.Name, limit)
			}
		}
		all = append(all, ps...)
	}
	return all, nil
}

func invalid(format string, args ...any) error {
	return status.WithCode(fmt.Errorf(format, args...), codes.InvalidArgument)
}

func load(ctx context.Context, a exporter.Attestation, opt Options) ([]Predicate, error) {
	switch a.Kind {
	case gatewaypb.AttestationKind_InToto:
		if a.PredicateType == "" {
			return nil, invalid("attestation %q has no predicate type", a.Path)
		}
		body, err := content(ctx, a, opt)
		if err != nil {
			return nil, err
		}
		return []Predicate{{Name: path.Base(a.Path), Type: a.PredicateType, Body: body, Metadata: a.Metadata, subjects: a.Subjects}}, nil
	case gatewaypb.AttestationKind_Bundle:
		if a.Ref == nil {
			return nil, invalid("attestation bundle %q has no tree", a.Path)
		}
		return unbundle(ctx, a, opt)
	default:
		return nil, invalid("unknown attestation kind %d", a.Kind)
	}
}

// content returns the predicate of an attestation that is no bundle.
func content(ctx context.Context, a exporter.Attestation, opt Options) (json.RawMessage, error) {
	switch {
	case a.Content != nil:
		body, err := a.Content(ctx, opt.Layers)
		if err != nil {
			return nil, err
		}
		return object(body, a.Path)
	case a.Ref == nil:
		return nil, invalid("attestation %q has no content", a.Path)
	}
	var body json.RawMessage
	err := view(ctx, a.Ref, opt.Access, func(root *os.Root) error {
		data, err := readFile(root, a.Path)
		if err != nil {
			return err
		}
		body, err = object(data, a.Path)
		return err
	})
	return body, err
}

// unbundle returns what the files of a bundle say.
func unbundle(ctx context.Context, a exporter.Attestation, opt Options) ([]Predicate, error) {
	var all []Predicate
	size := 0
	err := view(ctx, a.Ref, opt.Access, func(root *os.Root) error {
		files, err := list(root, a.Path)
		if err != nil {
			return err
		}
		for _, name := range files {
			p, err := statement(root, path.Join(a.Path, name), a.PredicateType)
			if err != nil {
				return err
			}
			p.Metadata = a.Metadata
			if size += len(p.Body); size > maxTotal {
				return invalid("attestation bundle %q is larger than %d bytes", a.Path, maxTotal)
			}
			all = append(all, p)
		}
		return nil
	})
	if err == nil && len(all) == 0 {
		// Nothing is wrong with it, but somebody has asked for what is not there.
		opt.Scope.Warn(event.Warning{Short: []byte("nothing is attached as " + cmp.Or(a.PredicateType, "attestation") + ": the scanner or frontend has written no statement")})
	}
	return all, err
}

// statement reads one file of a bundle, of the type if there is one.
func statement(root *os.Root, name, typ string) (Predicate, error) {
	data, err := readFile(root, name)
	if err != nil {
		return Predicate{}, err
	}
	var s Statement
	if err := decode(data, &s); err != nil {
		return Predicate{}, invalid("attestation %q is no in-toto statement: %w", name, err)
	}
	switch {
	case s.PredicateType == "":
		return Predicate{}, invalid("attestation %q has no predicate type", name)
	case typ != "" && s.PredicateType != typ:
		return Predicate{}, invalid("bundle entry %q does not match required predicate type %s: it has %s", name, typ, s.PredicateType)
	case strings.HasPrefix(s.PredicateType, PredicateProvenance):
		return Predicate{}, invalid("bundle entry %q: only the builder may state %s", name, s.PredicateType)
	}
	p := Predicate{Name: path.Base(name), Type: s.PredicateType}
	if p.Body, err = object(s.Predicate, name); err != nil {
		return Predicate{}, err
	}
	for _, sub := range s.Subject {
		own := exporter.Subject{Kind: gatewaypb.InTotoSubjectKind_Raw, Name: sub.Name}
		for alg, hex := range sub.Digest {
			own.Digest = append(own.Digest, digest.Digest(alg+":"+hex))
		}
		p.subjects = append(p.subjects, own)
	}
	return p, nil
}

// Statement returns the statement about self, which is the part of the result that was exported.
func (p Predicate) Statement(self []Subject) Statement {
	s := Statement{Type: StatementType, PredicateType: p.Type, Subject: []Subject{}, Predicate: p.Body}
	if len(p.subjects) == 0 {
		s.Subject = append(s.Subject, self...)
	}
	for _, sub := range p.subjects {
		if sub.Kind == gatewaypb.InTotoSubjectKind_Self {
			s.Subject = append(s.Subject, self...)
			continue
		}
		own := Subject{Name: sub.Name, Digest: map[string]string{}}
		if own.Name == "" {
			own.Name = "_"
		}
		for _, d := range sub.Digest {
			alg, hex, _ := strings.Cut(string(d), ":")
			own.Digest[alg] = hex
		}
		s.Subject = append(s.Subject, own)
	}
	return s
}

// view calls fn with a tree.
func view(ctx context.Context, ref *cache.Ref, acc cache.Access, fn func(*os.Root) error) (err error) {
	m, err := ref.Mount(ctx, true, acc)
	if err != nil {
		return err
	}
	dir, release, err := snapshot.MountTemp(m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fn(root)
}

// inside returns a path of a frontend's as one below the root of a tree.
func inside(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

// list returns the names of the files of a bundle, in order. Folders in it are an error, like all
// that is no regular file.
func list(root *os.Root, dir string) ([]string, error) {
	d, err := root.Open(inside(dir))
	if err != nil {
		return nil, invalid("attestation bundle %q: %w", dir, err)
	}
	defer d.Close()
	names, err := d.Readdirnames(maxFiles + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, invalid("attestation bundle %q: %w", dir, err)
	}
	if len(names) > maxFiles {
		return nil, invalid("attestation bundle %q has more than %d files", dir, maxFiles)
	}
	slices.Sort(names)
	return names, nil
}

// readFile reads a regular file of bounded size.
func readFile(root *os.Root, name string) ([]byte, error) {
	st, err := root.Lstat(inside(name))
	if err != nil {
		return nil, invalid("attestation %q: %w", name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, invalid("attestation %q is not a regular file", name)
	}
	f, err := root.Open(inside(name))
	if err != nil {
		return nil, invalid("attestation %q: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, invalid("attestation %q: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, invalid("attestation %q is larger than %d bytes", name, maxFile)
	}
	return data, nil
}

// decode reads the one JSON value that data is.
func decode(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows the first JSON value")
	}
	return nil
}

// object returns data compact if it is one JSON object.
func object(data []byte, name string) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := decode(data, &fields); err != nil {
		return nil, invalid("predicate of attestation %q is no JSON object: %w", name, err)
	}
	if fields == nil {
		return nil, invalid("predicate of attestation %q is no JSON object", name)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		return nil, invalid("predicate of attestation %q: %w", name, err)
	}
	return out.Bytes(), nil
}
