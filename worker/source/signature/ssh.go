package signature

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Signatures of SSH as ssh-keygen makes them (OpenSSH's PROTOCOL.sshsig, version 1).
const (
	sshBegin     = "-----BEGIN SSH SIGNATURE-----"
	sshType      = "SSH SIGNATURE"
	sshMagic     = "SSHSIG"
	sshVersion   = 1
	gitNamespace = "git"
)

// sshSignature is the content of the armor after the magic bytes.
type sshSignature struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// sshSigned is what is signed, after the magic bytes.
type sshSigned struct {
	Namespace string
	Reserved  string
	Hash      string
	Digest    []byte
}

// verifySSH checks a signature that was made for a purpose.
func (k *Keys) verifySSH(payload, armored []byte, namespace string) error {
	if len(armored) > maxSignature {
		return fmt.Errorf("%d bytes are too much for a signature", len(armored))
	}
	sig, err := parseSSH(armored)
	if err != nil {
		return fmt.Errorf("its signature can't be read: %w", err)
	}
	if sig.Namespace != namespace {
		return fmt.Errorf("its signature is for %q", sig.Namespace)
	}
	key := k.sshKey(sig.PublicKey)
	if key == nil {
		return ErrUnknown
	}
	var digest []byte
	switch sig.Hash {
	case "sha256":
		sum := sha256.Sum256(payload)
		digest = sum[:]
	case "sha512":
		sum := sha512.Sum512(payload)
		digest = sum[:]
	default:
		return fmt.Errorf("its signature has the unknown hash %q", sig.Hash)
	}
	var value ssh.Signature
	if err := ssh.Unmarshal(sig.Signature, &value); err != nil {
		return fmt.Errorf("its signature can't be read: %w", err)
	}
	if value.Format == ssh.KeyAlgoRSA {
		return errors.New("its signature is made with SHA-1")
	}
	signed := append([]byte(sshMagic), ssh.Marshal(sshSigned{sig.Namespace, sig.Reserved, sig.Hash, digest})...)
	return key.Verify(signed, &value)
}

func parseSSH(armored []byte) (*sshSignature, error) {
	block, _ := pem.Decode(armored)
	if block == nil || block.Type != sshType {
		return nil, errors.New("no armor of SSH")
	}
	data, ok := bytes.CutPrefix(block.Bytes, []byte(sshMagic))
	if !ok {
		return nil, errors.New("no signature of SSH")
	}
	var sig sshSignature
	if err := ssh.Unmarshal(data, &sig); err != nil {
		return nil, err
	}
	if sig.Version != sshVersion {
		return nil, fmt.Errorf("version %d", sig.Version)
	}
	return &sig, nil
}

// sshKey returns the key of the list that is the one in wire form; nil if there is none.
func (k *Keys) sshKey(wire []byte) ssh.PublicKey {
	for _, key := range k.ssh {
		if bytes.Equal(key.Marshal(), wire) {
			return key
		}
	}
	return nil
}
