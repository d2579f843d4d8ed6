package dockerfile

import (
	"context"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
)

// subrequest answers a question about the Dockerfile instead of building it.
func (b *build) subrequest(context.Context) (*gateway.Result, error) {
	return nil, &status.SubrequestError{Name: b.opts.request}
}
