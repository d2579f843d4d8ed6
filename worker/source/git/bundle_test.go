//go:build linux

package git

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	sessioncontent "github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/worker/source"
)

// absent is a remote that nobody can reach.
const absent = "http://127.0.0.1:1/r.git"

// bundle writes a bundle of revisions and returns it.
func (r *repo) bundle(args ...string) []byte {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "b")
	r.git(append([]string{"bundle", "create", "-q", file}, args...)...)
	data, err := os.ReadFile(file)
	require.NoError(r.t, err)
	return data
}

// blobServer is a registry that can be told to refuse, and that counts what it is asked for.
type blobServer struct {
	*httptest.Server
	t       *testing.T
	denied  atomic.Bool
	fetched atomic.Int64
}

func serveBlobs(t *testing.T) *blobServer {
	t.Helper()
	s := &blobServer{t: t}
	next := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.denied.Load() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			s.fetched.Add(1)
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// put stores a blob and returns its locator.
func (s *blobServer) put(data []byte) string {
	s.t.Helper()
	repo, err := name.NewRepository(strings.TrimPrefix(s.URL, "http://") + "/a/b")
	require.NoError(s.t, err)
	require.NoError(s.t, remote.WriteLayer(repo, static.NewLayer(data, "application/octet-stream")))
	return "docker-image+blob://" + repo.String() + "@" + digest.FromBytes(data).String()
}

func TestABundleTakesThePlaceOfTheRemote(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"sha1", "sha256"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t, t.TempDir(), "r", "--object-format="+format)
			one := r.head()
			r.git("tag", "-a", "-m", "note", "v1")
			tag := r.git("rev-parse", "v1")
			r.write("two.txt", "two\n")
			two := r.commit("two")
			s := serveBlobs(t)
			locator := s.put(r.bundle("HEAD", "--all"))
			b := newBench(t)
			for name, c := range map[string]struct {
				ref, checksum string
				byCommit      bool
				want          string
			}{
				"a branch":                      {"main", two[:7], false, two},
				"the default":                   {"", two, false, two},
				"a tag by its object":           {"v1", tag, false, one},
				"a tag by its commit":           {"v1", one[:9], false, one},
				"a commit":                      {one, one, false, one},
				"a checksum, fetched by commit": {"main", one, true, one},
				"a ref that only others have":   {"release", one, false, one},
				"a tag that only others have":   {"release", tag, false, one},
			} {
				a := attrs{pb.AttrGitBundle: locator, pb.AttrGitChecksum: c.checksum}
				if c.byCommit {
					a[pb.AttrGitFetchByCommit] = "true"
				}
				tr := b.must(absent, c.ref, a)
				require.Equal(t, c.want, tr.key.Pin, name)
				require.False(t, tr.key.Session)
				_, second := tr.files["two.txt"]
				require.Equal(t, c.want == two, second, name)
			}
			require.EqualValues(t, 1, s.fetched.Load(), "the bundle is fetched once")
			require.Equal(t, map[string]string{"in.txt": "in\n"},
				b.must(absent, "main:sub", attrs{pb.AttrGitBundle: locator, pb.AttrGitChecksum: two}).files)
			tr := b.must(absent, "v1", attrs{pb.AttrGitBundle: locator, pb.AttrGitChecksum: tag, pb.AttrGitKeepDir: "true"})
			require.Contains(t, tr.files[".git/config"], "url = "+absent)
			require.Equal(t, tag+"\n", tr.files[".git/refs/tags/v1"])

			meta, err := b.src.ResolveGit(t.Context(), b.instance(absent, "v1", attrs{pb.AttrGitBundle: locator, pb.AttrGitChecksum: tag}, nil).id, true, source.Env{})
			require.NoError(t, err)
			require.Equal(t, one, meta.GetCommitChecksum())
			require.NotEmpty(t, meta.GetTagObject())
		})
	}
}

// A digest and a commit are no secrets.
func TestABundleIsForThoseWhoMayReadIt(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	s := serveBlobs(t)
	a := attrs{pb.AttrGitBundle: s.put(r.bundle("main")), pb.AttrGitChecksum: r.head()}
	b := newBench(t)
	mine := b.must(absent, r.head(), a)
	s.denied.Store(true)
	for _, ref := range []string{r.head(), "main"} {
		_, _, err := b.instance(absent, ref, a, nil).Key(t.Context(), 0)
		require.ErrorContains(t, err, "403", "the registry is asked though the commit is known")
	}
	s.denied.Store(false)

	dir := t.TempDir()
	store, err := local.NewStore(dir)
	require.NoError(t, err)
	data := r.bundle("main")
	folder := filepath.Join(dir, "blobs", "sha256")
	require.NoError(t, os.MkdirAll(folder, 0o755))
	dgst := digest.FromBytes(data)
	require.NoError(t, os.WriteFile(filepath.Join(folder, dgst.Encoded()), data, 0o600))
	b.session = sessiontest.Join(t, b.src.cfg.Sessions, nil, sessioncontent.NewProvider(map[string]content.Store{"oci:lay": store})).ID()
	for _, own := range []attrs{
		{pb.AttrGitBundle: "oci-layout+blob://lay@" + dgst.String()},
		{pb.AttrGitBundle: "oci-layout+blob://x@" + dgst.String(), pb.AttrOCIStore: "lay", pb.AttrOCISession: b.session},
	} {
		own[pb.AttrGitChecksum] = r.head()
		tr := b.must(absent, "main", own)
		require.True(t, tr.key.Session, "nobody else gets the file of a client by its commit")
		require.Equal(t, mine.files, tr.files)
		require.NotEqual(t, mine.key.Value, tr.key.Value)
	}

	// The remote, of which submodules may come, was not asked about the credentials.
	b.session = sessiontest.Join(t, b.src.cfg.Sessions, nil, secrets.NewProvider(memory{"GIT_AUTH_TOKEN": "any"})).ID()
	for skip, session := range map[string]bool{"false": true, "true": false} {
		a[pb.AttrGitSkipSubmodules] = skip
		require.Equal(t, session, b.must(absent, "main", a).key.Session)
	}
}

func TestBadBundles(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	one := r.head()
	r.write("two.txt", "two\n")
	two := r.commit("two")
	s := serveBlobs(t)
	whole := r.bundle("main")
	spoilt := append([]byte(nil), whole...)
	spoilt[len(spoilt)-30]++
	for name, c := range map[string]struct {
		data          []byte
		ref, checksum string
		want          string
	}{
		"no bundle":             {[]byte("hello"), "main", one, "does not look like"},
		"a part of a bundle":    {whole[:len(whole)-40], "main", two, "git stderr"},
		"a spoilt one":          {spoilt, "main", two, "git stderr"},
		"one that needs others": {r.bundle("main", "^"+one), "main", two, "lacks these prerequisite commits"},
		"one without the ref":   {whole, "nosuch", two[:8], "does not contain ref nosuch"},
		"one without the commit": {
			whole, "nosuch", strings.Repeat("1", 40), "does not contain commit " + strings.Repeat("1", 40),
		},
		"one without the wanted commit": {whole, strings.Repeat("1", 40), strings.Repeat("1", 40), "does not contain commit"},
		"another commit":                {whole, "main", one, "expected checksum to match " + one + ", got " + two},
		"another commit by its name":    {whole, one, two, "expected checksum to match " + two + ", got " + one},
	} {
		_, err := newBench(t).fetch(absent, c.ref, attrs{pb.AttrGitBundle: s.put(c.data), pb.AttrGitChecksum: c.checksum})
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestATreeCanBeABundle(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.git("tag", "-a", "-m", "note", "v1")
	r.write("two.txt", "two\n")
	r.commit("two")
	b := newBench(t)
	s := serve(t, root)
	b.must(s.url("r"), "", nil) // what is here is shallow
	for ref, commits := range map[string]string{"": "2", "v1": "1", r.head(): "2"} {
		tr := b.must(s.url("r"), ref, attrs{pb.AttrGitCheckoutBundle: "true"})
		require.Len(t, tr.files, 1)
		file := filepath.Join(t.TempDir(), "b")
		require.NoError(t, os.WriteFile(file, []byte(tr.files["bundle"]), 0o600))
		require.Contains(t, r.git("bundle", "verify", file), "complete history")
		clone := &repo{t, filepath.Join(t.TempDir(), "c")}
		require.NoError(t, exec.Command("git", "clone", "-q", file, clone.dir).Run())
		require.Equal(t, commits, clone.git("rev-list", "--count", "HEAD"))
		if ref == "" {
			require.Equal(t, "refs/heads/main", clone.git("symbolic-ref", "HEAD"))
		}

		// It can be read again.
		locator := serveBlobs(t).put([]byte(tr.files["bundle"]))
		again := b.must(absent, ref, attrs{pb.AttrGitBundle: locator, pb.AttrGitChecksum: tr.key.Pin})
		require.Equal(t, "top\n", again.files["top.txt"])
	}
}

func FuzzBundleFormat(f *testing.F) {
	f.Add([]byte("# v2 git bundle\n"+strings.Repeat("a", 40)+" HEAD\n\nPACK"), false)
	f.Add([]byte("# v3 git bundle\n@filter=blob:none\n@object-format=sha256\n\n"), true)
	f.Add([]byte("# v3 git bundle\n-@object-format=sha256\n@object-format=sha256\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, want bool) {
		got := bundleFormat(bytes.NewReader(data))
		require.Contains(t, []string{sha1, sha256}, got)
		if want && bytes.HasPrefix(data, []byte("# v3 git bundle\n@object-format=sha256\n")) {
			require.Equal(t, sha256, got)
		}
	})
}
