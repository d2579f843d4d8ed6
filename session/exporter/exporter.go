// Package exporter lets a client choose exporters when its build has been done, by what the result
// says of itself, and hear of what they answered. The daemon asks; exporters that are chosen follow those
// of the request, and count like them.
//
// The package carries questions and answers: exporters themselves are package exporter's.
package exporter

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	exporterpb "github.com/openbuildkit/buildkit/api/session/exporter"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session"
)

// Request names an exporter and its attributes.
type Request struct {
	Type  string
	Attrs map[string]string
}

// Chooser chooses exporters. An error of either method fails the build.
type Chooser interface {
	// FindExporters returns the exporters that are wanted besides those of the request. It is given the
	// metadata of the result and the ids of its trees in the cache of the daemon.
	FindExporters(ctx context.Context, metadata map[string][]byte, refs []string) ([]Request, error)
	// FinalizeExport is given what all exporters of the build answered.
	FinalizeExport(ctx context.Context, response map[string]string) error
}

// Provider is the client's service.
type Provider struct {
	exporterpb.UnimplementedExporterServer
	chooser Chooser
}

// NewProvider returns the service of a Chooser.
func NewProvider(c Chooser) *Provider { return &Provider{chooser: c} }

// Register adds the service to a server.
func (p *Provider) Register(srv *grpc.Server) { exporterpb.RegisterExporterServer(srv, p) }

// FindExporters asks the Chooser.
func (p *Provider) FindExporters(ctx context.Context, req *exporterpb.FindExportersRequest) (*exporterpb.FindExportersResponse, error) {
	found, err := p.chooser.FindExporters(ctx, req.GetMetadata(), req.GetRefs())
	if err != nil {
		return nil, err
	}
	resp := &exporterpb.FindExportersResponse{}
	for _, e := range found {
		resp.Exporters = append(resp.Exporters, &exporterpb.ExporterRequest{Type: e.Type, Attrs: e.Attrs})
	}
	return resp, nil
}

// FinalizeExport tells the Chooser.
func (p *Provider) FinalizeExport(ctx context.Context, req *exporterpb.FinalizeExportRequest) (*exporterpb.FinalizeExportResponse, error) {
	if err := p.chooser.FinalizeExport(ctx, req.GetExporterResponse()); err != nil {
		return nil, err
	}
	return &exporterpb.FinalizeExportResponse{}, nil
}

// Find asks the session id which exporters it wants besides those of the request: none if it does not
// choose, or is not there.
func Find(ctx context.Context, m *session.Manager, id string, metadata map[string][]byte, refs []string) (found []Request, err error) {
	err = ask(ctx, m, id, func(ctx context.Context, c exporterpb.ExporterClient) error {
		resp, err := c.FindExporters(ctx, &exporterpb.FindExportersRequest{Metadata: metadata, Refs: refs})
		for _, e := range resp.GetExporters() {
			found = append(found, Request{Type: e.GetType(), Attrs: e.GetAttrs()})
		}
		return err
	})
	return found, err
}

// Finalize tells the session id what the exporters answered, if it wants to know.
func Finalize(ctx context.Context, m *session.Manager, id string, response map[string]string) error {
	return ask(ctx, m, id, func(ctx context.Context, c exporterpb.ExporterClient) error {
		_, err := c.FinalizeExport(ctx, &exporterpb.FinalizeExportRequest{ExporterResponse: response})
		return err
	})
}

func ask(ctx context.Context, m *session.Manager, id string, fn func(context.Context, exporterpb.ExporterClient) error) error {
	err := m.Any(ctx, session.IDs{id}, func(ctx context.Context, c *session.Caller) error {
		return fn(ctx, exporterpb.NewExporterClient(c.Conn()))
	})
	if code := status.Code(err); code == codes.Unimplemented || code == codes.Unavailable {
		return nil
	}
	return err
}
