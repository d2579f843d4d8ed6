package e2e_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// Every form of an image goes to registries that are encrypted and want to know who comes, in one
// build; what is there then is judged by the programs of others.
func TestWhatPrivateRegistriesGetIsReadByOtherTools(t *testing.T) {
	tokens := registrytest.StartTokens(t, registrytest.TokenOptions{
		TLS: true, Users: passwords, Rights: func(user, _ string) string {
			if user == "ann" {
				return "pull,push"
			}
			return ""
		},
	})
	basic := registrytest.Start(t, registrytest.Options{TLS: true, Users: passwords})
	token := registrytest.Start(t, registrytest.Options{TLS: true, Tokens: tokens})
	authorities := filepath.Join(t.TempDir(), "ca.pem")
	write(t, authorities, read(t, basic.CA)+read(t, token.CA)+read(t, tokens.CA))
	auth := base64.StdEncoding.EncodeToString([]byte("ann:" + passwords["ann"]))
	login := tree(t, map[string]string{"config.json": fmt.Sprintf(`{"auths":{%q:{"auth":%q},%q:{"auth":%q}}}`, basic.Addr, auth, token.Addr, auth)})
	tool := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+authorities, "DOCKER_CONFIG="+login)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	}

	busybox := harness.StartRegistry(t)
	busybox.PushBusybox(t)
	d := harness.StartDaemon(t, harness.DaemonOptions{Registry: busybox, Config: fmt.Sprintf(
		"[registry.%q]\nhttp = false\nca = [%q]\n[registry.%q]\nhttp = false\nca = [%q]\n", basic.Addr, basic.CA, token.Addr, token.CA)})
	forms := map[string]string{
		"usual": "", "docker": ",oci-mediatypes=false", "estargz": ",compression=estargz,force-compression=true",
		"zstd": ",compression=zstd,force-compression=true", "plain": ",compression=uncompressed,force-compression=true",
	}
	args := []string{"--registry-auth-tlscontext=host=" + token.Addr + ",ca=" + tokens.CA}
	args = append(args, toRegistry(token.Addr+"/out/app:usual"))
	for form, attributes := range forms {
		args = append(args, toRegistry(basic.Addr+"/out/app:"+form)+attributes)
	}
	c := prepare(t, d, harness.DockerfileArgs(application(t), args...)...)
	c.cmd.Env = append(c.cmd.Env, "DOCKER_CONFIG="+login)
	c.start(t)
	r := c.wait(t)
	require.Zero(t, r.Code, r.Stderr)
	requireSecret(t, r.Stdout+r.Stderr+d.Logs())

	copied := func(reference string) (layout string) {
		layout = filepath.Join(t.TempDir(), "layout")
		tool("skopeo", "copy", "--authfile="+filepath.Join(login, "config.json"), "docker://"+reference, "oci:"+layout+":1")
		return layout
	}
	requireApplication(t, readLayout(t, copied(token.Addr+"/out/app:usual")))
	for form := range forms {
		reference := basic.Addr + "/out/app:" + form
		layout := copied(reference)
		if form != "zstd" && form != "plain" { // it knows gzip only
			tool("go", "tool", "-modfile=../tools/go.mod", "crane", "validate", "--remote="+reference)
		}
		if form != "zstd" { // which it does not know
			bundle := filepath.Join(t.TempDir(), "bundle")
			command(t, "umoci", "unpack", "--image="+layout+":1", bundle)
			require.Equal(t, "contents\n", read(t, bundle, "rootfs/app/file"))
		}
	}
	d.RequireIdle(t)
}

// More layers than a mount took at a time before there were file descriptors for them.
func TestAnImageOfManyLayersIsBuiltOnAndPushed(t *testing.T) {
	const many = 130
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	var layers [][]entry
	for i := range many {
		layers = append(layers, []entry{regular(fmt.Sprint("file", i), fmt.Sprintln(i))})
	}
	registry.Push(t, "library/many:1", imageOf(t, layers...))
	reference, to := registry.Host+"/out/many:1", t.TempDir()
	d.Build(t, dockerfile(t, "FROM many:1", "RUN cat /file0 /file100 /file129 > /some && rm /file7"),
		"--output=type=image,push=true,name="+reference, toLocal(to))
	require.Equal(t, "0\n100\n129\n", read(t, to, "some"))
	require.NoFileExists(t, filepath.Join(to, "file7"))

	pushed, err := pulled(t, reference).Layers()
	require.NoError(t, err)
	require.Len(t, pushed, 1+many+1)
	again := t.TempDir()
	d.MustBuildctl(t, "prune", "--all")
	d.Build(t, dockerfile(t, "FROM "+reference), toLocal(again))
	require.Equal(t, "129\n", read(t, again, "file129"))
	require.NoFileExists(t, filepath.Join(again, "file7"))
	requirePruned(t, d)
}
