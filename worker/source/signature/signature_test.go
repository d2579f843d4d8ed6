package signature_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker/source/signature"
)

// signer is a key of OpenPGP.
type signer struct {
	entity *openpgp.Entity
	config *packet.Config
}

// newSigner makes a key that was made some time ago and lives for a time, 0 for ever.
func newSigner(t *testing.T, age, life time.Duration) *signer {
	t.Helper()
	made := time.Now().Add(-age)
	config := &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: uint32(life / time.Second), Time: func() time.Time { return made },
	}
	e, err := openpgp.NewEntity("Signer", "", "signer@example.com", config)
	require.NoError(t, err)
	return &signer{e, config}
}

func (s *signer) public(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	require.NoError(t, err)
	require.NoError(t, s.entity.Serialize(w))
	require.NoError(t, w.Close())
	return b.String() + "\n"
}

func (s *signer) sign(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, openpgp.ArmoredDetachSign(&b, s.entity, strings.NewReader(text), s.config))
	return b.String() + "\n"
}

func keys(t *testing.T, text ...string) *signature.Keys {
	t.Helper()
	k, err := signature.ParseKeys(strings.Join(text, ""))
	require.NoError(t, err)
	return k
}

func TestDetachedSignaturesOfFiles(t *testing.T) {
	a, b, old := newSigner(t, time.Hour, 0), newSigner(t, time.Hour, 0), newSigner(t, 2*time.Hour, time.Hour)
	verify := func(k *signature.Keys, text, sig string) error {
		return k.VerifyDetached("file", strings.NewReader(text), sig)
	}
	require.NoError(t, verify(keys(t, a.public(t)), "text", a.sign(t, "text")))
	require.NoError(t, verify(keys(t, a.public(t), b.public(t)), "text", b.sign(t, "text")))
	require.NoError(t, verify(keys(t, old.public(t)), "text", old.sign(t, "text")), "the key was good when it signed")
	require.ErrorIs(t, verify(keys(t, b.public(t)), "text", a.sign(t, "text")), signature.ErrUnknown)
	require.ErrorContains(t, verify(keys(t, a.public(t)), "other", a.sign(t, "text")), "signature of file can't be verified")
	require.Error(t, verify(keys(t, a.public(t)), "text", "nothing"))
	require.Error(t, verify(keys(t, a.public(t)), "text", a.public(t)))
	require.Error(t, verify(keys(t, a.public(t)), "text", strings.Repeat("x", 1<<20)))
}

const (
	id       = "0123456789012345678901234567890123456789"
	head     = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@example.com> 1 +0000\ncommitter A <a@example.com> 1 +0000\n"
	text     = "\nsubject\n\nbody\n"
	tagHead  = "object " + id + "\ntype commit\ntag v1\ntagger A <a@example.com> 1 +0000\n\nrelease\n"
	unsigned = head + text
)

// signedCommit returns a commit with a signature in a header, before another one.
func signedCommit(header, sig string) []byte {
	lines := strings.ReplaceAll(strings.TrimSuffix(sig, "\n"), "\n", "\n ")
	return []byte(head + header + " " + lines + "\nencoding x\n" + text)
}

func TestSignaturesOfCommitsAndTags(t *testing.T) {
	a, b, old := newSigner(t, time.Hour, 0), newSigner(t, time.Hour, 0), newSigner(t, 2*time.Hour, time.Hour)
	payload := head + "encoding x\n" + text
	good := signedCommit("gpgsig", a.sign(t, payload))
	bad := signedCommit("gpgsig", b.sign(t, payload))
	goodTag := []byte(tagHead + a.sign(t, tagHead))
	badTag := []byte(tagHead + b.sign(t, tagHead))
	elsewhere := strings.Replace(tagHead, id, strings.Repeat("f", 40), 1)
	for name, tc := range map[string]struct {
		commit []byte
		tag    []byte
		opt    signature.GitOptions
		want   string
	}{
		"a signed commit":                          {commit: good},
		"a commit that is not signed":              {commit: []byte(unsigned), want: "it is not signed"},
		"a commit of somebody else":                {commit: bad, want: "by none of the keys"},
		"a commit that was changed":                {commit: bytes.Replace(good, []byte("body"), []byte("BODY"), 1), want: "invalid signature"},
		"a commit with its headers changed":        {commit: bytes.Replace(good, []byte("encoding x"), []byte("encoding y"), 1), want: "invalid signature"},
		"a signature over the other object format": {commit: signedCommit("gpgsig-sha256", a.sign(t, payload)), want: "it is not signed"},
		"a second signature that would do":         {commit: bytes.Replace(bad, []byte("encoding x"), bytes.TrimSuffix(good[len(head):bytes.Index(good, []byte("encoding x"))], []byte("\n")), 1), want: "by none of the keys"},
		"a signed tag":                             {commit: []byte(unsigned), tag: goodTag},
		"a tag of somebody else":                   {commit: good, tag: badTag, want: "the tag of commit"},
		"a tag of somebody else that is ignored":   {commit: good, tag: badTag, opt: signature.GitOptions{IgnoreSignedTag: true}},
		"a signed tag of another commit":           {commit: good, tag: []byte(elsewhere + a.sign(t, elsewhere)), want: "the tag is of another object"},
		"a tag that is not signed":                 {commit: good, tag: []byte(tagHead)},
		"a tag that should be signed":              {commit: good, tag: []byte(tagHead), opt: signature.GitOptions{RequireSignedTag: true}, want: "it is not signed"},
		"a tag that should be":                     {commit: good, opt: signature.GitOptions{RequireSignedTag: true}, want: "there is no annotated tag"},
		"a key that has expired since":             {commit: signedCommit("gpgsig", old.sign(t, payload))},
		"a key that has expired and should not":    {commit: signedCommit("gpgsig", old.sign(t, payload)), opt: signature.GitOptions{RejectExpired: true}, want: "expired"},
		"no object":                                {commit: nil, want: "it is not signed"},
		"a signature of an unknown kind":           {commit: signedCommit("gpgsig", "-----BEGIN SIGNED MESSAGE-----\n"), want: "unknown kind"},
		"a signature of SSH without a key of SSH":  {commit: signedCommit("gpgsig", "-----BEGIN SSH SIGNATURE-----\n"), want: "no key of SSH"},
	} {
		t.Run(name, func(t *testing.T) {
			k := keys(t, a.public(t), old.public(t))
			err := k.VerifyGit(signature.Commit{ID: id, Object: tc.commit, Tag: tc.tag}, tc.opt)
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// git runs git with a key of SSH in a repository.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{
		"-c", "gpg.format=ssh", "-c", "user.signingkey=" + filepath.Join(dir, "key"), "-c", "user.name=A", "-c", "user.email=a@example.com",
	}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestGitSignsWithKeysOfSSH(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
			t.Run(format+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", filepath.Join(dir, "key")).CombinedOutput()
				require.NoError(t, err, string(out))
				public, err := os.ReadFile(filepath.Join(dir, "key.pub"))
				require.NoError(t, err)
				git(t, dir, "init", "-q", "--object-format="+format)
				git(t, dir, "commit", "-q", "-S", "--allow-empty", "-m", "one")
				git(t, dir, "tag", "-s", "-m", "release", "v1")
				c := signature.Commit{
					ID:     strings.TrimSpace(git(t, dir, "rev-parse", "HEAD")),
					Object: []byte(git(t, dir, "cat-file", "commit", "HEAD")),
					Tag:    []byte(git(t, dir, "cat-file", "tag", "v1")),
				}
				k := keys(t, "# the key\n", string(public))
				require.NoError(t, k.VerifyGit(c, signature.GitOptions{RequireSignedTag: true}))
				require.NoError(t, k.VerifyGit(c, signature.GitOptions{IgnoreSignedTag: true}))
				changed := c
				changed.Object = bytes.Replace(c.Object, []byte("\none"), []byte("\ntwo"), 1)
				require.Error(t, k.VerifyGit(changed, signature.GitOptions{IgnoreSignedTag: true}))
				other := keys(t, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIuJ2GzX9yk1VQ2n0xGQ7r4q4mBzQO3rZ8E0Q5lP0x1h\n")
				require.ErrorIs(t, other.VerifyGit(c, signature.GitOptions{}), signature.ErrUnknown)
			})
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	a := newSigner(t, time.Hour, 0)
	for text, want := range map[string]string{
		"":                       "there is none",
		"# only a comment\n":     "there is none",
		"ssh-ed25519 nonsense\n": "is no key",
		strings.TrimSuffix(a.public(t), "-----END PGP PUBLIC KEY BLOCK-----\n"): "public keys",
		strings.Repeat("#", 2<<20): "are more than",
	} {
		_, err := signature.ParseKeys(text)
		require.ErrorContains(t, err, want)
	}
}

func FuzzVerifyGit(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIuJ2GzX9yk1VQ2n0xGQ7r4q4mBzQO3rZ8E0Q5lP0x1h", []byte(unsigned), []byte(tagHead))
	f.Add("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxjM=\n-----END PGP PUBLIC KEY BLOCK-----\n",
		[]byte(fmt.Sprintf("%sgpgsig -----BEGIN SSH SIGNATURE-----\n U1NIU0lHAAAAAQ==\n -----END SSH SIGNATURE-----\n\nx", head)), []byte("object x\n\n-----BEGIN PGP SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, keyText string, commit, tag []byte) {
		k, err := signature.ParseKeys(keyText)
		if err != nil {
			return
		}
		// Nothing that was not signed with a private key is accepted.
		if err := k.VerifyGit(signature.Commit{ID: id, Object: commit, Tag: tag}, signature.GitOptions{}); err == nil {
			t.Errorf("accepted %q with %q", commit, tag)
		}
	})
}
