package pb

import (
	"bytes"
	"encoding/json"
)

// The types below have JSON forms of their own: the kind of an op, of a file action and of an
// owner is an object with the kind as its only key. Provenance and dumps hold these forms, and
// consumers parse them. Everything else is plain struct JSON.

type opJSON struct {
	Inputs      []*Input           `json:"inputs,omitempty"`
	Op          opKindJSON         `json:"Op"`
	Platform    *Platform          `json:"platform,omitempty"`
	Constraints *WorkerConstraints `json:"constraints,omitempty"`
}

type opKindJSON struct {
	Exec        *ExecOp        `json:"exec,omitempty"`
	Source      *SourceOp      `json:"source,omitempty"`
	File        *FileOp        `json:"file,omitempty"`
	Build       *BuildOp       `json:"build,omitempty"`
	Merge       *MergeOp       `json:"merge,omitempty"`
	Diff        *DiffOp        `json:"diff,omitempty"`
	Passthrough *PassthroughOp `json:"passthrough,omitempty"`
}

// MarshalJSON returns the JSON form of an op. It is the same each time for the same op.
func (m *Op) MarshalJSON() ([]byte, error) {
	return marshalJSON(opJSON{
		Inputs: m.GetInputs(),
		Op: opKindJSON{
			Exec:        m.GetExec(),
			Source:      m.GetSource(),
			File:        m.GetFile(),
			Build:       m.GetBuild(),
			Merge:       m.GetMerge(),
			Diff:        m.GetDiff(),
			Passthrough: m.GetPassthrough(),
		},
		Platform:    m.GetPlatform(),
		Constraints: m.GetConstraints(),
	})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *Op) UnmarshalJSON(data []byte) error {
	var v opJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	m.Inputs, m.Platform, m.Constraints, m.Op = v.Inputs, v.Platform, v.Constraints, nil
	switch k := v.Op; {
	case k.Exec != nil:
		m.Op = &Op_Exec{k.Exec}
	case k.Source != nil:
		m.Op = &Op_Source{k.Source}
	case k.File != nil:
		m.Op = &Op_File{k.File}
	case k.Build != nil:
		m.Op = &Op_Build{k.Build}
	case k.Merge != nil:
		m.Op = &Op_Merge{k.Merge}
	case k.Diff != nil:
		m.Op = &Op_Diff{k.Diff}
	case k.Passthrough != nil:
		m.Op = &Op_Passthrough{k.Passthrough}
	}
	return nil
}

type fileActionJSON struct {
	Input          int64              `json:"input"`
	SecondaryInput int64              `json:"secondaryInput"`
	Output         int64              `json:"output"`
	Action         fileActionKindJSON `json:"Action"`
}

// fileActionKindJSON has no symlink: consumers do not expect one.
type fileActionKindJSON struct {
	Copy   *FileActionCopy   `json:"copy,omitempty"`
	MkFile *FileActionMkFile `json:"mkfile,omitempty"`
	MkDir  *FileActionMkDir  `json:"mkdir,omitempty"`
	Rm     *FileActionRm     `json:"rm,omitempty"`
}

// MarshalJSON returns the JSON form of a file action; that of a symlink is empty.
func (m *FileAction) MarshalJSON() ([]byte, error) {
	return marshalJSON(fileActionJSON{
		Input:          m.GetInput(),
		SecondaryInput: m.GetSecondaryInput(),
		Output:         m.GetOutput(),
		Action: fileActionKindJSON{
			Copy:   m.GetCopy(),
			MkFile: m.GetMkfile(),
			MkDir:  m.GetMkdir(),
			Rm:     m.GetRm(),
		},
	})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *FileAction) UnmarshalJSON(data []byte) error {
	var v fileActionJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	m.Input, m.SecondaryInput, m.Output, m.Action = v.Input, v.SecondaryInput, v.Output, nil
	switch k := v.Action; {
	case k.Copy != nil:
		m.Action = &FileAction_Copy{k.Copy}
	case k.MkFile != nil:
		m.Action = &FileAction_Mkfile{k.MkFile}
	case k.MkDir != nil:
		m.Action = &FileAction_Mkdir{k.MkDir}
	case k.Rm != nil:
		m.Action = &FileAction_Rm{k.Rm}
	}
	return nil
}

type userOptJSON struct {
	User userJSON `json:"User"`
}

type userJSON struct {
	ByName *NamedUserOpt `json:"byName,omitempty"`
	ByID   *uint32       `json:"byId,omitempty"`
}

// MarshalJSON returns the JSON form of an owner.
func (m *UserOpt) MarshalJSON() ([]byte, error) {
	v := userOptJSON{User: userJSON{ByName: m.GetByName()}}
	if u, ok := m.GetUser().(*UserOpt_ByID); ok {
		v.User.ByID = &u.ByID
	}
	return marshalJSON(v)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *UserOpt) UnmarshalJSON(data []byte) error {
	var v userOptJSON
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	m.User = nil
	switch {
	case v.User.ByName != nil:
		m.User = &UserOpt_ByName{v.User.ByName}
	case v.User.ByID != nil:
		m.User = &UserOpt_ByID{*v.User.ByID}
	}
	return nil
}

// marshalJSON leaves characters of HTML alone: shell commands are full of them.
func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
