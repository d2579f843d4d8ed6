// Package signature checks the signatures of what sources fetch: of a file by a detached OpenPGP
// signature, of a commit or tag of git by the OpenPGP or SSH signature in its object. The keys come
// with the request; there is no trust beyond them, no key server and no web of trust.
//
// It reads what it is given and asks nobody. That an object is the one with a certain id is for its
// caller to see to, as is that the content of the tree is that of the commit.
package signature

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"golang.org/x/crypto/ssh"
)

const (
	// maxKeys bounds the text of keys, maxSignature that of a signature, in bytes.
	maxKeys      = 1 << 20
	maxSignature = 256 << 10

	pgpBegin = "-----BEGIN PGP "
	pgpKey   = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
)

// Error says that something has not the signature that it should have.
type Error struct {
	// Object is what should be signed: "commit 1234...".
	Object string
	Err    error
}

// Error names the object and the reason.
func (e *Error) Error() string {
	return fmt.Sprintf("signature of %s can't be verified: %v", e.Object, e.Err)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Reasons, to be tested with errors.Is.
var (
	ErrUnsigned = errors.New("it is not signed")
	ErrUnknown  = errors.New("it is signed by none of the keys")
)

// Keys are the public keys whose signatures count.
type Keys struct {
	pgp openpgp.EntityList
	ssh []ssh.PublicKey
}

// ParseKeys reads keys as text: blocks of OpenPGP in their armor (RFC 9580, section 6.2), and keys
// of SSH one a line, as in authorized_keys (sshd(8)). There must be one at least.
func ParseKeys(text string) (*Keys, error) {
	if len(text) > maxKeys {
		return nil, fmt.Errorf("public keys: %d bytes are more than %d", len(text), maxKeys)
	}
	k := &Keys{}
	rest := text
	for {
		before, block, found := strings.Cut(rest, pgpKey)
		if err := k.addLines(before); err != nil {
			return nil, err
		}
		if !found {
			break
		}
		r := bufio.NewReader(strings.NewReader(pgpKey + block))
		entities, err := openpgp.ReadArmoredKeyRing(r)
		if err != nil {
			return nil, fmt.Errorf("public keys: %w", err)
		}
		k.pgp = append(k.pgp, entities...)
		if _, rest, found = strings.Cut(block, "-----END PGP PUBLIC KEY BLOCK-----"); !found {
			return nil, errors.New("public keys: a block has no end")
		}
	}
	if len(k.pgp) == 0 && len(k.ssh) == 0 {
		return nil, errors.New("public keys: there is none")
	}
	return k, nil
}

// addLines reads keys of SSH.
func (k *Keys) addLines(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return fmt.Errorf("public keys: %q is no key: %w", shorten(line), err)
		}
		k.ssh = append(k.ssh, key)
	}
	return nil
}

func shorten(s string) string {
	const enough = 40
	if len(s) > enough {
		return s[:enough] + "..."
	}
	return s
}

// VerifyDetached checks the armored OpenPGP signature of what is read. Signatures and keys that
// have expired since still count: what was released stays released.
func (k *Keys) VerifyDetached(object string, signed io.Reader, signature string) error {
	if err := k.verifyPGP(signed, []byte(signature), false); err != nil {
		return &Error{object, err}
	}
	return nil
}

// verifyPGP checks an armored signature.
func (k *Keys) verifyPGP(signed io.Reader, signature []byte, rejectExpired bool) error {
	if len(signature) > maxSignature {
		return fmt.Errorf("%d bytes are too much for a signature", len(signature))
	}
	block, err := armor.Decode(bytes.NewReader(signature))
	if err != nil {
		return fmt.Errorf("its signature can't be read: %w", err)
	}
	if block.Type != openpgp.SignatureType {
		return fmt.Errorf("%q is no signature", block.Type)
	}
	_, err = openpgp.CheckDetachedSignature(k.pgp, signed, block.Body, nil)
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return ErrUnknown
	case rejectExpired:
	case errors.Is(err, pgperrors.ErrSignatureExpired), errors.Is(err, pgperrors.ErrKeyExpired):
		// The library has checked all else before it says so.
		return nil
	}
	return err
}
