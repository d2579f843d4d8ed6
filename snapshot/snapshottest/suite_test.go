//go:build linux

package snapshottest_test

import (
	"testing"

	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/snapshottest"
)

func TestOverlay(t *testing.T) { snapshottest.Run(t, snapshot.Overlay) }

func TestNative(t *testing.T) { snapshottest.Run(t, snapshot.Native) }
