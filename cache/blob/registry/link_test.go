package registry

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLinksToTheNextPage(t *testing.T) {
	at, err := url.Parse("https://registry.test/v2/x/referrers/sha256:0?artifactType=a")
	require.NoError(t, err)
	const page = "https://registry.test/v2/x/referrers/sha256:0?last=2"
	for _, links := range [][]string{
		{`</v2/x/referrers/sha256:0?last=2>; rel="next"`},
		{`<?last=2>;REL=next`},
		{`<a>; rel="first", <` + page + `>; title="a, \"<b>\"; rel=prev"; rel="Next last"`},
		{`<a>; rel="first"`, `<` + page + `>; rel=next`},
	} {
		u, err := nextPage(at, links)
		require.NoError(t, err, links)
		require.NotNil(t, u, links)
		require.Equal(t, page, u.String(), links)
	}
	for _, links := range [][]string{nil, {""}, {"<a"}, {"<a>"}, {`<a>; rel="prev"`}, {`<a>; title="rel=next"`}, {`a; rel=next`}} {
		u, err := nextPage(at, links)
		require.NoError(t, err, links)
		require.Nil(t, u, links)
	}
	for _, link := range []string{"<//other.test/x>; rel=next", "<http://registry.test/>; rel=next", "<https://u:p@registry.test/>; rel=next", "<https://[::>; rel=next"} {
		_, err := nextPage(at, []string{link})
		require.ErrorContains(t, err, "next page of https://registry.test/", link)
	}
}
