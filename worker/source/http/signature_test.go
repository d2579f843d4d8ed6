//go:build linux

package http

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/source/signature"
)

// newSigner returns a key, and signatures made with it.
func newSigner(t *testing.T) (public string, sign func(text string) string) {
	t.Helper()
	e, err := openpgp.NewEntity("Signer", "", "signer@example.com", nil)
	require.NoError(t, err)
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	require.NoError(t, err)
	require.NoError(t, e.Serialize(w))
	require.NoError(t, w.Close())
	return b.String(), func(text string) string {
		var b bytes.Buffer
		require.NoError(t, openpgp.ArmoredDetachSign(&b, e, strings.NewReader(text), nil))
		return b.String()
	}
}

func TestAFileIsCheckedAgainstItsSignature(t *testing.T) {
	w := newWeb(t, serve("hello", `"1"`))
	b := newBench(t, w)
	key, sign := newSigner(t)
	other, _ := newSigner(t)
	u := w.URL + "/f"
	with := func(key, sig string, more ...string) map[string]string {
		attrs := map[string]string{pb.AttrHTTPSigPubKey: key, pb.AttrHTTPSigSignature: sig}
		if len(more) > 0 {
			attrs[pb.AttrHTTPChecksum] = more[0]
		}
		return attrs
	}
	plain, err := b.get(u, nil)
	require.NoError(t, err)
	signed, err := b.get(u, with(key, sign("hello")))
	require.NoError(t, err)
	require.Equal(t, "hello", signed.content)
	require.NotEqual(t, plain.key, signed.key, "what was not checked is no answer to who wants it checked")

	// The file is here by now, with and without a checksum that promises it.
	promised := digest.FromString("hello").String()
	for _, attrs := range []map[string]string{
		with(other, sign("hello")), with(key, sign("other")),
		with(other, sign("hello"), promised), with(key, sign("other"), promised),
	} {
		g, err := b.get(u, attrs)
		var e *signature.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, u, e.Object)
		require.NotEqual(t, signed.key, g.key)
	}
	_, err = b.get(u, with(key, sign("hello"), promised))
	require.NoError(t, err)
}
