package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	sourcepolicypb "github.com/openbuildkit/buildkit/api/sourcepolicy"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/session/auth"
	"github.com/openbuildkit/buildkit/session/secrets"
)

func envOf(kv ...string) lookupEnv {
	return func(key string) (string, bool) {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == key {
				return kv[i+1], true
			}
		}
		return "", false
	}
}

func TestSecretsAreParsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for value, want := range map[string]secrets.Source{
		"id=a":                       {ID: "a"},
		"id=a,src=" + file:           {ID: "a", FilePath: file},
		"id=a,source=" + file:        {ID: "a", FilePath: file},
		"id=a,env=E":                 {ID: "a", Env: "E"},
		"type=env,id=a,src=E":        {ID: "a", Env: "E"},
		"type=env,id=a,env=E":        {ID: "a", Env: "E"},
		"type=file,ID=a,src=" + file: {ID: "a", FilePath: file},
	} {
		got, err := parseSecret(value)
		require.NoError(t, err, value)
		require.Equal(t, want, got, value)
	}
}

func TestCachesAreParsed(t *testing.T) {
	got, err := parseExportCaches([]string{"type=local,Dest=x", "type=inline,mode=max", "example.org/ref"}, envOf())
	require.NoError(t, err)
	require.Equal(t, []client.CacheOption{
		{Type: "local", Attrs: map[string]string{"dest": "x", "mode": "min"}},
		{Type: "inline", Attrs: map[string]string{"mode": "max"}},
		{Type: "registry", Attrs: map[string]string{"ref": "example.org/ref", "mode": "min"}},
	}, got)
	got, err = parseImportCaches([]string{"type=gha,scope=s"}, envOf("ACTIONS_CACHE_SERVICE_V2", "true", "ACTIONS_RESULTS_URL", "r", "ACTIONS_RUNTIME_TOKEN", "t"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"scope": "s", "url": "r", "url_v2": "r", "token": "t"}, got[0].Attrs)
}

func TestOutputsAreParsed(t *testing.T) {
	dir := t.TempDir()
	out, err := parseOutputs([]string{
		`type=image,"name=a,b",push=true`,
		"type=local,dest=" + dir + ",mode=delete",
		"type=oci,tar=false,dest=" + dir,
		"type=tar,dest=" + filepath.Join(dir, "f.tar"),
	}, os.Stdout)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"name": "a,b", "push": "true"}, out[0].Attrs)
	require.Equal(t, dir, out[1].OutputDir)
	require.Equal(t, map[string]string{"mode": "delete"}, out[1].Attrs)
	require.Equal(t, dir, out[2].OutputDir)
	require.Equal(t, map[string]string{"tar": "false"}, out[2].Attrs)
	require.Empty(t, out[3].Attrs)

	w, err := out[3].Output(nil)
	require.NoError(t, err)
	_, err = w.Write([]byte("part"))
	require.NoError(t, err)
	file, ok := w.(*outputFile)
	require.True(t, ok)
	require.NoError(t, file.CloseWithError(os.ErrClosed))
	require.NoFileExists(t, filepath.Join(dir, "f.tar"), "a part of an output was left")
}

func TestOutputsDoNotShareAFile(t *testing.T) {
	t.Chdir(t.TempDir())
	file, err := os.Create("stdout")
	require.NoError(t, err)
	defer file.Close()
	_, err = parseOutputs([]string{"type=tar,dest=a", "type=oci,dest=./a"}, file)
	require.EqualError(t, err, "invalid output option: output: more than one output is written to ./a")
	_, err = parseOutputs([]string{"type=tar", "type=oci,dest=-"}, file)
	require.EqualError(t, err, "invalid output option: output: more than one output is written to stdout")
	_, err = parseOutputs([]string{"type=tar,dest=/dev/null", "type=oci,dest=/dev/null", "type=local,dest=d", "type=local,dest=d"}, file)
	require.NoError(t, err)
}

func TestKeysOfAnnotationsKeepTheirCase(t *testing.T) {
	attrs, err := parseCSV("Name=A,annotation-Index[Linux/amd64].org.Example=B")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"name": "A", "annotation-index[linux/amd64].org.Example": "B"}, attrs)
}

func TestRegistryAuthAddsUp(t *testing.T) {
	got, err := parseRegistryAuthTLS([]string{"host=a,ca=1", "host=a,ca=2,cert=c,key=k", "host=b,insecure=true"})
	require.NoError(t, err)
	require.Equal(t, map[string]auth.TLSConfig{
		"a": {RootCAs: []string{"1", "2"}, KeyPairs: []auth.KeyPair{{Certificate: "c", Key: "k"}}},
		"b": {Insecure: true},
	}, got)
	for _, bad := range []string{"host=a", "host=a,insecure=maybe", "host=a,insecure=false", "host=a,what=x", "host=a,key=k"} {
		_, err := parseRegistryAuthTLS([]string{bad})
		require.Error(t, err, bad)
	}
}

func TestEntitlementsAreChecked(t *testing.T) {
	ok := []string{"network.host", "security.insecure", "device", "device=vendor/class=x,alias=y"}
	got, err := parseAllow(ok)
	require.NoError(t, err)
	require.Equal(t, ok, got)
	for _, bad := range []string{"everything", "network.host=1", ""} {
		_, err := parseAllow([]string{bad})
		require.EqualError(t, err, "unknown entitlement "+bad)
	}
}

func TestSourcePoliciesAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"rules":[{"action":"CONVERT","selector":{"identifier":"a","match_type":"REGEX"},"updates":{"identifier":"b"}},{"action":1}]}`), 0o600))
	p, err := readSourcePolicy(path)
	require.NoError(t, err)
	require.Equal(t, sourcepolicypb.PolicyAction_CONVERT, p.Rules[0].Action)
	require.Equal(t, sourcepolicypb.MatchType_REGEX, p.Rules[0].Selector.MatchType)
	require.Equal(t, sourcepolicypb.PolicyAction_DENY, p.Rules[1].Action)
	for _, bad := range []string{`{"rules":[{"action":"MAYBE"}]}`, `{"rules":[{"selectors":{}}]}`, `{"rules":[{"selector":{"match_type":"GLOB"}}]}`} {
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o600))
		_, err := readSourcePolicy(path)
		require.ErrorContains(t, err, "failed to unmarshal source-policy-file", bad)
	}
}

func TestDatabasesAreDumped(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "worker"), 0o755))
	db, err := bolt.Open(filepath.Join(root, "worker", "m.db"), 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("outer"))
		if err != nil {
			return err
		}
		in, err := b.CreateBucket([]byte{1})
		if err != nil {
			return err
		}
		return in.Put([]byte("k"), []byte(`{"a":1}`))
	}))
	var out, busy writerBuffer
	require.ErrorContains(t, dumpMetadata(&busy, root), "is the daemon running?")
	require.NoError(t, db.Close())
	require.NoError(t, dumpMetadata(&out, root))
	require.Equal(t, "===== "+filepath.Join(root, "worker", "m.db")+" =====\nbucket outer:\n  bucket \"\\x01\":\n    k: {\"a\":1}\n", string(out))
}

type writerBuffer []byte

func (b *writerBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}
