package api_test

import (
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// llbCases are the messages of LLB.
var llbCases = []wireCase{
	{
		name: "pb.Op with exec",
		message: &pb.Op{
			Inputs:      []*pb.Input{{Digest: "digest"}, {}},
			Platform:    &pb.Platform{Architecture: "architecture"},
			Constraints: &pb.WorkerConstraints{Filter: []string{"x"}},
			Op:          &pb.Op_Exec{Exec: &pb.ExecOp{Network: pb.NetMode_NONE}},
		},
		wire: join(
			msg(1, str(1, "digest")),
			msg(1),
			msg(10, str(1, "architecture")),
			msg(11, str(1, "x")),
			msg(2, num(3, 2)),
		),
	},
	{
		name: "pb.Op with source",
		message: &pb.Op{
			Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "identifier"}},
		},
		wire: join(
			msg(3, str(1, "identifier")),
		),
	},
	{
		name: "pb.Op with file",
		message: &pb.Op{
			Op: &pb.Op_File{File: &pb.FileOp{}},
		},
		wire: join(
			msg(4),
		),
	},
	{
		name: "pb.Op with build",
		message: &pb.Op{
			Op: &pb.Op_Build{Build: &pb.BuildOp{Builder: 101}},
		},
		wire: join(
			msg(5, num(1, 101)),
		),
	},
	{
		name: "pb.Op with merge",
		message: &pb.Op{
			Op: &pb.Op_Merge{Merge: &pb.MergeOp{}},
		},
		wire: join(
			msg(6),
		),
	},
	{
		name: "pb.Op with diff",
		message: &pb.Op{
			Op: &pb.Op_Diff{Diff: &pb.DiffOp{}},
		},
		wire: join(
			msg(7),
		),
	},
	{
		name: "pb.Op with passthrough",
		message: &pb.Op{
			Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{Id: "id"}},
		},
		wire: join(
			msg(8, str(1, "id")),
		),
	},
	{
		name: "pb.Platform",
		message: &pb.Platform{
			Architecture: "architecture",
			OS:           "os",
			Variant:      "variant",
			OSVersion:    "osversion",
			OSFeatures:   []string{"osfeatures", "osfeatures2"},
		},
		wire: join(
			str(1, "architecture"),
			str(2, "os"),
			str(3, "variant"),
			str(4, "osversion"),
			str(5, "osfeatures"),
			str(5, "osfeatures2"),
		),
	},
	{
		name: "pb.Input",
		message: &pb.Input{
			Digest: "digest",
			Index:  102,
		},
		wire: join(
			str(1, "digest"),
			num(2, 102),
		),
	},
	{
		name: "pb.ExecOp",
		message: &pb.ExecOp{
			Meta:       &pb.Meta{Cwd: "cwd"},
			Mounts:     []*pb.Mount{{Input: 101}, {}},
			Network:    pb.NetMode_NONE,
			Security:   pb.SecurityMode_INSECURE,
			Secretenv:  []*pb.SecretEnv{{ID: "id"}, {}},
			CdiDevices: []*pb.CDIDevice{{Name: "name"}, {}},
		},
		wire: join(
			msg(1, str(3, "cwd")),
			msg(2, num(1, 101)),
			msg(2),
			num(3, 2),
			num(4, 1),
			msg(5, str(1, "id")),
			msg(5),
			msg(6, str(1, "name")),
			msg(6),
		),
	},
	{
		name: "pb.Meta",
		message: &pb.Meta{
			Args:                      []string{"args", "args2"},
			Env:                       []string{"env", "env2"},
			Cwd:                       "cwd",
			User:                      "user",
			ProxyEnv:                  &pb.ProxyEnv{HttpProxy: "http_proxy"},
			ExtraHosts:                []*pb.HostIP{{Host: "host"}, {}},
			Hostname:                  "hostname",
			Ulimit:                    []*pb.Ulimit{{Name: "name"}, {}},
			CgroupParent:              "cgroupparent",
			RemoveMountStubsRecursive: true,
			ValidExitCodes:            []int32{112, -212},
		},
		wire: join(
			str(1, "args"),
			str(1, "args2"),
			str(2, "env"),
			str(2, "env2"),
			str(3, "cwd"),
			str(4, "user"),
			msg(5, str(1, "http_proxy")),
			msg(6, str(1, "host")),
			msg(6),
			str(7, "hostname"),
			msg(9, str(1, "name")),
			msg(9),
			str(10, "cgroupparent"),
			num(11, 1),
			packed(12, 112, -212),
		),
	},
	{
		name: "pb.HostIP",
		message: &pb.HostIP{
			Host: "host",
			IP:   "ip",
		},
		wire: join(
			str(1, "host"),
			str(2, "ip"),
		),
	},
	{
		name: "pb.Ulimit",
		message: &pb.Ulimit{
			Name: "name",
			Soft: 102,
			Hard: 103,
		},
		wire: join(
			str(1, "name"),
			num(2, 102),
			num(3, 103),
		),
	},
	{
		name: "pb.SecretEnv",
		message: &pb.SecretEnv{
			ID:       "id",
			Name:     "name",
			Optional: true,
		},
		wire: join(
			str(1, "id"),
			str(2, "name"),
			num(3, 1),
		),
	},
	{
		name: "pb.CDIDevice",
		message: &pb.CDIDevice{
			Name:     "name",
			Optional: true,
		},
		wire: join(
			str(1, "name"),
			num(2, 1),
		),
	},
	{
		name: "pb.Mount",
		message: &pb.Mount{
			Input:        101,
			Selector:     "selector",
			Dest:         "dest",
			Output:       104,
			Readonly:     true,
			MountType:    pb.MountType_TMPFS,
			TmpfsOpt:     &pb.TmpfsOpt{Size: 101},
			CacheOpt:     &pb.CacheOpt{ID: "id"},
			SecretOpt:    &pb.SecretOpt{ID: "id"},
			SSHOpt:       &pb.SSHOpt{ID: "id"},
			ResultID:     "resultid",
			ContentCache: pb.MountContentCache_OFF,
		},
		wire: join(
			num(1, 101),
			str(2, "selector"),
			str(3, "dest"),
			num(4, 104),
			num(5, 1),
			num(6, 4),
			msg(19, num(1, 101)),
			msg(20, str(1, "id")),
			msg(21, str(1, "id")),
			msg(22, str(1, "id")),
			str(23, "resultid"),
			num(24, 2),
		),
	},
	{
		name: "pb.TmpfsOpt",
		message: &pb.TmpfsOpt{
			Size: 101,
		},
		wire: join(
			num(1, 101),
		),
	},
	{
		name: "pb.CacheOpt",
		message: &pb.CacheOpt{
			ID:      "id",
			Sharing: pb.CacheSharingOpt_LOCKED,
		},
		wire: join(
			str(1, "id"),
			num(2, 2),
		),
	},
	{
		name: "pb.SecretOpt",
		message: &pb.SecretOpt{
			ID:       "id",
			Uid:      102,
			Gid:      103,
			Mode:     104,
			Optional: true,
		},
		wire: join(
			str(1, "id"),
			num(2, 102),
			num(3, 103),
			num(4, 104),
			num(5, 1),
		),
	},
	{
		name: "pb.SSHOpt",
		message: &pb.SSHOpt{
			ID:       "id",
			Uid:      102,
			Gid:      103,
			Mode:     104,
			Optional: true,
		},
		wire: join(
			str(1, "id"),
			num(2, 102),
			num(3, 103),
			num(4, 104),
			num(5, 1),
		),
	},
	{
		name: "pb.SourceOp",
		message: &pb.SourceOp{
			Identifier: "identifier",
			Attrs:      map[string]string{"k": "attrs"},
		},
		wire: join(
			str(1, "identifier"),
			msg(2, str(1, "k"), str(2, "attrs")),
		),
	},
	{
		name: "pb.BuildOp",
		message: &pb.BuildOp{
			Builder: 101,
			Inputs:  map[string]*pb.BuildInput{"k": {Input: 101}},
			Def:     &pb.Definition{Def: [][]byte{[]byte("x")}},
			Attrs:   map[string]string{"k": "attrs"},
		},
		wire: join(
			num(1, 101),
			msg(2, str(1, "k"), msg(2, num(1, 101))),
			msg(3, str(1, "x")),
			msg(4, str(1, "k"), str(2, "attrs")),
		),
	},
	{
		name: "pb.BuildInput",
		message: &pb.BuildInput{
			Input: 101,
		},
		wire: join(
			num(1, 101),
		),
	},
	{
		name: "pb.OpMetadata",
		message: &pb.OpMetadata{
			IgnoreCache:    true,
			Description:    map[string]string{"k": "description"},
			ExportCache:    &pb.ExportCache{Value: true},
			Caps:           map[string]bool{"k": true},
			ProgressGroup:  &pb.ProgressGroup{Id: "id"},
			LinuxResources: &pb.LinuxResources{Memory: 101},
		},
		wire: join(
			num(1, 1),
			msg(2, str(1, "k"), str(2, "description")),
			msg(4, num(1, 1)),
			msg(5, str(1, "k"), num(2, 1)),
			msg(6, str(1, "id")),
			msg(7, num(1, 101)),
		),
	},
	{
		name: "pb.Source",
		message: &pb.Source{
			Locations: map[string]*pb.Locations{"k": {}},
			Infos:     []*pb.SourceInfo{{Filename: "filename"}, {}},
		},
		wire: join(
			msg(1, str(1, "k"), msg(2)),
			msg(2, str(1, "filename")),
			msg(2),
		),
	},
	{
		name: "pb.Locations",
		message: &pb.Locations{
			Locations: []*pb.Location{{SourceIndex: 101}, {}},
		},
		wire: join(
			msg(1, num(1, 101)),
			msg(1),
		),
	},
	{
		name: "pb.SourceInfo",
		message: &pb.SourceInfo{
			Filename:   "filename",
			Data:       []byte("data"),
			Definition: &pb.Definition{Def: [][]byte{[]byte("x")}},
			Language:   "language",
		},
		wire: join(
			str(1, "filename"),
			str(2, "data"),
			msg(3, str(1, "x")),
			str(4, "language"),
		),
	},
	{
		name: "pb.Location",
		message: &pb.Location{
			SourceIndex: 101,
			Ranges:      []*pb.Range{{}, {}},
		},
		wire: join(
			num(1, 101),
			msg(2),
			msg(2),
		),
	},
	{
		name: "pb.Range",
		message: &pb.Range{
			Start: &pb.Position{Line: 101},
			End:   &pb.Position{Line: 101},
		},
		wire: join(
			msg(1, num(1, 101)),
			msg(2, num(1, 101)),
		),
	},
	{
		name: "pb.Position",
		message: &pb.Position{
			Line:      101,
			Character: 102,
		},
		wire: join(
			num(1, 101),
			num(2, 102),
		),
	},
	{
		name: "pb.ExportCache",
		message: &pb.ExportCache{
			Value: true,
		},
		wire: join(
			num(1, 1),
		),
	},
	{
		name: "pb.ProgressGroup",
		message: &pb.ProgressGroup{
			Id:   "id",
			Name: "name",
			Weak: true,
		},
		wire: join(
			str(1, "id"),
			str(2, "name"),
			num(3, 1),
		),
	},
	{
		name: "pb.LinuxResources",
		message: &pb.LinuxResources{
			Memory:     101,
			MemorySwap: 102,
			CpuShares:  103,
			CpuPeriod:  104,
			CpuQuota:   105,
			CpusetCpus: "cpusetcpus",
			CpusetMems: "cpusetmems",
		},
		wire: join(
			num(1, 101),
			num(2, 102),
			num(3, 103),
			num(4, 104),
			num(5, 105),
			str(6, "cpusetcpus"),
			str(7, "cpusetmems"),
		),
	},
	{
		name: "pb.ProxyEnv",
		message: &pb.ProxyEnv{
			HttpProxy:  "http_proxy",
			HttpsProxy: "https_proxy",
			FtpProxy:   "ftp_proxy",
			NoProxy:    "no_proxy",
			AllProxy:   "all_proxy",
		},
		wire: join(
			str(1, "http_proxy"),
			str(2, "https_proxy"),
			str(3, "ftp_proxy"),
			str(4, "no_proxy"),
			str(5, "all_proxy"),
		),
	},
	{
		name: "pb.WorkerConstraints",
		message: &pb.WorkerConstraints{
			Filter: []string{"filter", "filter2"},
		},
		wire: join(
			str(1, "filter"),
			str(1, "filter2"),
		),
	},
	{
		name: "pb.Definition",
		message: &pb.Definition{
			Def:      [][]byte{[]byte("def"), []byte("def2")},
			Metadata: map[string]*pb.OpMetadata{"k": {IgnoreCache: true}},
			Source:   &pb.Source{},
		},
		wire: join(
			str(1, "def"),
			str(1, "def2"),
			msg(2, str(1, "k"), msg(2, num(1, 1))),
			msg(3),
		),
	},
	{
		name: "pb.FileOp",
		message: &pb.FileOp{
			Actions: []*pb.FileAction{{Input: 101}, {}},
		},
		wire: join(
			msg(2, num(1, 101)),
			msg(2),
		),
	},
	{
		name: "pb.FileAction with copy",
		message: &pb.FileAction{
			Input:          101,
			SecondaryInput: 102,
			Output:         103,
			Action:         &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "src"}},
		},
		wire: join(
			num(1, 101),
			num(2, 102),
			num(3, 103),
			msg(4, str(1, "src")),
		),
	},
	{
		name: "pb.FileAction with mkfile",
		message: &pb.FileAction{
			Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "path"}},
		},
		wire: join(
			msg(5, str(1, "path")),
		),
	},
	{
		name: "pb.FileAction with mkdir",
		message: &pb.FileAction{
			Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "path"}},
		},
		wire: join(
			msg(6, str(1, "path")),
		),
	},
	{
		name: "pb.FileAction with rm",
		message: &pb.FileAction{
			Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "path"}},
		},
		wire: join(
			msg(7, str(1, "path")),
		),
	},
	{
		name: "pb.FileAction with symlink",
		message: &pb.FileAction{
			Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: "oldpath"}},
		},
		wire: join(
			msg(8, str(1, "oldpath")),
		),
	},
	{
		name: "pb.FileActionCopy",
		message: &pb.FileActionCopy{
			Src:                              "src",
			Dest:                             "dest",
			Owner:                            &pb.ChownOpt{},
			Mode:                             104,
			FollowSymlink:                    true,
			DirCopyContents:                  true,
			AttemptUnpackDockerCompatibility: true,
			CreateDestPath:                   true,
			AllowWildcard:                    true,
			AllowEmptyWildcard:               true,
			Timestamp:                        111,
			IncludePatterns:                  []string{"include_patterns", "include_patterns2"},
			ExcludePatterns:                  []string{"exclude_patterns", "exclude_patterns2"},
			AlwaysReplaceExistingDestPaths:   true,
			ModeStr:                          "modestr",
			RequiredPaths:                    []string{"required_paths", "required_paths2"},
		},
		wire: join(
			str(1, "src"),
			str(2, "dest"),
			msg(3),
			num(4, 104),
			num(5, 1),
			num(6, 1),
			num(7, 1),
			num(8, 1),
			num(9, 1),
			num(10, 1),
			num(11, 111),
			str(12, "include_patterns"),
			str(12, "include_patterns2"),
			str(13, "exclude_patterns"),
			str(13, "exclude_patterns2"),
			num(14, 1),
			str(15, "modestr"),
			str(16, "required_paths"),
			str(16, "required_paths2"),
		),
	},
	{
		name: "pb.FileActionMkFile",
		message: &pb.FileActionMkFile{
			Path:      "path",
			Mode:      102,
			Data:      []byte("data"),
			Owner:     &pb.ChownOpt{},
			Timestamp: 105,
		},
		wire: join(
			str(1, "path"),
			num(2, 102),
			str(3, "data"),
			msg(4),
			num(5, 105),
		),
	},
	{
		name: "pb.FileActionSymlink",
		message: &pb.FileActionSymlink{
			Oldpath:   "oldpath",
			Newpath:   "newpath",
			Owner:     &pb.ChownOpt{},
			Timestamp: 104,
		},
		wire: join(
			str(1, "oldpath"),
			str(2, "newpath"),
			msg(3),
			num(4, 104),
		),
	},
	{
		name: "pb.FileActionMkDir",
		message: &pb.FileActionMkDir{
			Path:        "path",
			Mode:        102,
			MakeParents: true,
			Owner:       &pb.ChownOpt{},
			Timestamp:   105,
		},
		wire: join(
			str(1, "path"),
			num(2, 102),
			num(3, 1),
			msg(4),
			num(5, 105),
		),
	},
	{
		name: "pb.FileActionRm",
		message: &pb.FileActionRm{
			Path:          "path",
			AllowNotFound: true,
			AllowWildcard: true,
		},
		wire: join(
			str(1, "path"),
			num(2, 1),
			num(3, 1),
		),
	},
	{
		name: "pb.ChownOpt",
		message: &pb.ChownOpt{
			User:  &pb.UserOpt{},
			Group: &pb.UserOpt{},
		},
		wire: join(
			msg(1),
			msg(2),
		),
	},
	{
		name: "pb.UserOpt with byName",
		message: &pb.UserOpt{
			User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "name"}},
		},
		wire: join(
			msg(1, str(1, "name")),
		),
	},
	{
		name: "pb.UserOpt with byID",
		message: &pb.UserOpt{
			User: &pb.UserOpt_ByID{ByID: 102},
		},
		wire: join(
			num(2, 102),
		),
	},
	{
		name: "pb.NamedUserOpt",
		message: &pb.NamedUserOpt{
			Name:  "name",
			Input: 102,
		},
		wire: join(
			str(1, "name"),
			num(2, 102),
		),
	},
	{
		name: "pb.MergeInput",
		message: &pb.MergeInput{
			Input: 101,
		},
		wire: join(
			num(1, 101),
		),
	},
	{
		name: "pb.MergeOp",
		message: &pb.MergeOp{
			Inputs: []*pb.MergeInput{{Input: 101}, {}},
		},
		wire: join(
			msg(1, num(1, 101)),
			msg(1),
		),
	},
	{
		name: "pb.LowerDiffInput",
		message: &pb.LowerDiffInput{
			Input: 101,
		},
		wire: join(
			num(1, 101),
		),
	},
	{
		name: "pb.UpperDiffInput",
		message: &pb.UpperDiffInput{
			Input: 101,
		},
		wire: join(
			num(1, 101),
		),
	},
	{
		name: "pb.DiffOp",
		message: &pb.DiffOp{
			Lower: &pb.LowerDiffInput{Input: 101},
			Upper: &pb.UpperDiffInput{Input: 101},
		},
		wire: join(
			msg(1, num(1, 101)),
			msg(2, num(1, 101)),
		),
	},
	{
		name: "pb.PassthroughOp",
		message: &pb.PassthroughOp{
			Id:      "id",
			Outputs: []int64{102, -202},
		},
		wire: join(
			str(1, "id"),
			packed(2, 102, -202),
		),
	},
}
