package signature

import (
	"bytes"
	"errors"
	"fmt"
)

// GitOptions says which signatures of git do.
type GitOptions struct {
	// RejectExpired refuses signatures of keys that have expired, and such that have themselves.
	RejectExpired bool
	// RequireSignedTag wants the tag to be signed; a signed commit does not do.
	RequireSignedTag bool
	// IgnoreSignedTag wants the commit to be signed, whatever the tag is.
	IgnoreSignedTag bool
}

// Commit is a commit as git stores it, with the annotated tag that led to it.
type Commit struct {
	// ID is the commit in hex; the length tells the object format of the repository.
	ID     string
	Object []byte
	// Tag is nil without an annotated tag.
	Tag []byte
}

var (
	errNoTag    = errors.New("there is no annotated tag")
	errTagElse  = errors.New("the tag is of another object")
	errSSHNoKey = fmt.Errorf("no key of SSH is given: %w", ErrUnknown)
)

// VerifyGit checks the signature of the tag, if it has one, or of the commit.
func (k *Keys) VerifyGit(c Commit, opt GitOptions) error {
	if opt.RequireSignedTag && c.Tag == nil {
		return &Error{"commit " + c.ID, errNoTag}
	}
	if c.Tag != nil && (!opt.IgnoreSignedTag || opt.RequireSignedTag) {
		payload, sig := splitTag(c.Tag)
		if sig != nil || opt.RequireSignedTag {
			if err := k.verifyTag(c, payload, sig, opt); err != nil {
				return &Error{"the tag of commit " + c.ID, err}
			}
			return nil
		}
	}
	payload, sig := splitCommit(c.Object, c.ID)
	if err := k.verify(payload, sig, opt); err != nil {
		return &Error{"commit " + c.ID, err}
	}
	return nil
}

func (k *Keys) verifyTag(c Commit, payload, sig []byte, opt GitOptions) error {
	if object, ok := header(payload, "object"); !ok || object != c.ID {
		return errTagElse
	}
	return k.verify(payload, sig, opt)
}

// verify checks a signature of either kind.
func (k *Keys) verify(payload, sig []byte, opt GitOptions) error {
	switch {
	case sig == nil:
		return ErrUnsigned
	case bytes.HasPrefix(sig, []byte(sshBegin)):
		if len(k.ssh) == 0 {
			return errSSHNoKey
		}
		return k.verifySSH(payload, sig, gitNamespace)
	case bytes.HasPrefix(sig, []byte(pgpBegin)):
		return k.verifyPGP(bytes.NewReader(payload), sig, opt.RejectExpired)
	}
	return errors.New("its signature is of an unknown kind")
}

// Headers of commits that hold signatures, over the content in one object format each
// (git's hash-function-transition, "Signed commits").
const (
	sigSHA1   = "gpgsig"
	sigSHA256 = "gpgsig-sha256"
	lenSHA256 = 64
)

// splitCommit returns what is signed of a commit and the signature; nil if there is none. A header
// goes on in lines that begin with a blank.
func splitCommit(object []byte, id string) (payload, sig []byte) {
	want := sigSHA1
	if len(id) == lenSHA256 {
		want = sigSHA256
	}
	end := bytes.Index(object, []byte("\n\n"))
	if end < 0 {
		end = len(object) - 1
	}
	inSig, wanted := false, false
	for line := range bytes.Lines(object[:end+1]) {
		name, value, _ := bytes.Cut(line, []byte(" "))
		switch {
		case line[0] == ' ' && inSig:
			if wanted {
				sig = append(sig, line[1:]...)
			}
		case string(name) == sigSHA1 || string(name) == sigSHA256:
			inSig, wanted = true, string(name) == want && sig == nil
			if wanted {
				sig = append([]byte{}, value...)
			}
		default:
			inSig = false
			payload = append(payload, line...)
		}
	}
	return append(payload, object[end+1:]...), sig
}

// splitTag returns what is signed of a tag and the signature, which is the end of its text; nil if
// there is none.
func splitTag(object []byte) (payload, sig []byte) {
	at := -1
	offset := 0
	for line := range bytes.Lines(object) {
		if bytes.HasPrefix(line, []byte(pgpBegin+"SIGNATURE-----")) || bytes.HasPrefix(line, []byte(sshBegin)) {
			at = offset
		}
		offset += len(line)
	}
	if at < 0 {
		return object, nil
	}
	return object[:at], object[at:]
}

// header returns the value of a header line of an object.
func header(object []byte, name string) (string, bool) {
	head, _, _ := bytes.Cut(object, []byte("\n\n"))
	for line := range bytes.Lines(head) {
		if key, value, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" ")); ok && string(key) == name {
			return string(value), true
		}
	}
	return "", false
}
