package dockerfile

import (
	"context"
	"fmt"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
)

// subrequest answers a question about the Dockerfile instead of building it.
func (b *build) subrequest(context.Context) (*gateway.Result, error) {
	name := b.opts.request
	return nil, &status.SubrequestError{Name: name, Err: fmt.Errorf("unsupported request %s", name)}
}
