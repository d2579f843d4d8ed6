package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
)

// readSourcePolicy reads the file of --source-policy-file. Values of enums are given by name or
// number.
func readSourcePolicy(path string) (*sourcepolicypb.Policy, error) {
	dt, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &sourcepolicypb.Policy{}
	// What is not JSON at all is reported better by package json.
	var raw json.RawMessage
	if err = json.Unmarshal(dt, &raw); err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(dt, p)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to unmarshal source-policy-file %q: %w", path, err)
	}
	return p, nil
}
