package ssh

import (
	"errors"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// readOnly is an agent that may be used but not changed.
type readOnly struct {
	agent.ExtendedAgent
}

var (
	errAdd    = errors.New("adding new keys not allowed by buildkit")
	errRemove = errors.New("removing keys not allowed by buildkit")
	errLock   = errors.New("locking agent not allowed by buildkit")
	errSigner = errors.New("signers not allowed by buildkit")
)

func (readOnly) Add(agent.AddedKey) error       { return errAdd }
func (readOnly) Remove(ssh.PublicKey) error     { return errRemove }
func (readOnly) RemoveAll() error               { return errRemove }
func (readOnly) Lock([]byte) error              { return errLock }
func (readOnly) Unlock([]byte) error            { return errLock }
func (readOnly) Signers() ([]ssh.Signer, error) { return nil, errSigner }

func (readOnly) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}
