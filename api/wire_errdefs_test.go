package api_test

import (
	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	pb "github.com/openbuildkit/buildkit/api/llb"
	stackpb "github.com/openbuildkit/buildkit/api/stack"
)

// errdefsCases are the messages of typed errors and stacks.
var errdefsCases = []wireCase{
	{
		name: "errdefs.Vertex",
		message: &errdefspb.Vertex{
			Digest: "digest",
		},
		wire: join(
			str(1, "digest"),
		),
	},
	{
		name: "errdefs.Source",
		message: &errdefspb.Source{
			Info:   &pb.SourceInfo{Filename: "filename"},
			Ranges: []*pb.Range{{}, {}},
		},
		wire: join(
			msg(1, str(1, "filename")),
			msg(2),
			msg(2),
		),
	},
	{
		name: "errdefs.Frontend",
		message: &errdefspb.Frontend{
			Name:   "name",
			Source: "source",
		},
		wire: join(
			str(1, "name"),
			str(2, "source"),
		),
	},
	{
		name: "errdefs.FrontendCap",
		message: &errdefspb.FrontendCap{
			Name: "name",
		},
		wire: join(
			str(1, "name"),
		),
	},
	{
		name: "errdefs.CompatibilityFeature",
		message: &errdefspb.CompatibilityFeature{
			Version: 101,
			Feature: "feature",
		},
		wire: join(
			num(1, 101),
			str(2, "feature"),
		),
	},
	{
		name: "errdefs.Subrequest",
		message: &errdefspb.Subrequest{
			Name: "name",
		},
		wire: join(
			str(1, "name"),
		),
	},
	{
		name: "errdefs.Solve with file",
		message: &errdefspb.Solve{
			InputIDs:    []string{"inputids", "inputids2"},
			MountIDs:    []string{"mountids", "mountids2"},
			Op:          &pb.Op{},
			Description: map[string]string{"k": "description"},
			Subject:     &errdefspb.Solve_File{File: &errdefspb.FileAction{Index: 101}},
		},
		wire: join(
			str(1, "inputids"),
			str(1, "inputids2"),
			str(2, "mountids"),
			str(2, "mountids2"),
			msg(3),
			msg(6, str(1, "k"), str(2, "description")),
			msg(4, num(1, 101)),
		),
	},
	{
		name: "errdefs.Solve with cache",
		message: &errdefspb.Solve{
			Subject: &errdefspb.Solve_Cache{Cache: &errdefspb.ContentCache{Index: 101}},
		},
		wire: join(
			msg(5, num(1, 101)),
		),
	},
	{
		name: "errdefs.FileAction",
		message: &errdefspb.FileAction{
			Index: 101,
		},
		wire: join(
			num(1, 101),
		),
	},
	{
		name: "errdefs.ContentCache",
		message: &errdefspb.ContentCache{
			Index: 101,
		},
		wire: join(
			num(1, 101),
		),
	},
	{
		name: "errdefs.ProvenanceMaterialsIncomplete",
		message: &errdefspb.ProvenanceMaterialsIncomplete{
			Incomplete: []*errdefspb.ProvenanceMaterialIncomplete{{Op: "op"}, {}},
		},
		wire: join(
			msg(1, str(1, "op")),
			msg(1),
		),
	},
	{
		name: "errdefs.ProvenanceMaterialIncomplete",
		message: &errdefspb.ProvenanceMaterialIncomplete{
			Op:       "op",
			Name:     "name",
			Method:   "method",
			Uri:      "uri",
			FinalUri: "final_uri",
			Reason:   "reason",
		},
		wire: join(
			str(1, "op"),
			str(2, "name"),
			str(3, "method"),
			str(4, "uri"),
			str(5, "final_uri"),
			str(6, "reason"),
		),
	},
	{
		name: "stack.Stack",
		message: &stackpb.Stack{
			Frames:   []*stackpb.Frame{{Name: "name"}, {}},
			Cmdline:  []string{"cmdline", "cmdline2"},
			Pid:      103,
			Version:  "version",
			Revision: "revision",
		},
		wire: join(
			msg(1, str(1, "name")),
			msg(1),
			str(2, "cmdline"),
			str(2, "cmdline2"),
			num(3, 103),
			str(4, "version"),
			str(5, "revision"),
		),
	},
	{
		name: "stack.Frame",
		message: &stackpb.Frame{
			Name: "name",
			File: "file",
			Line: 103,
		},
		wire: join(
			str(1, "name"),
			str(2, "file"),
			num(3, 103),
		),
	},
}
