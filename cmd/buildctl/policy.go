package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
)

// readSourcePolicy reads the file of --source-policy-file. Values of enums are given by name or
// number. What nobody knows is refused: a rule that is not understood must not be taken for another.
func readSourcePolicy(path string) (*sourcepolicypb.Policy, error) {
	dt, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &sourcepolicypb.Policy{}
	// What is not JSON at all is reported better by package json.
	var raw json.RawMessage
	if err = json.Unmarshal(dt, &raw); err == nil {
		if err = protojson.Unmarshal(dt, p); err != nil {
			err = plainProtoError(err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("failed to unmarshal source-policy-file %q: %w", path, err)
	}
	return p, nil
}
