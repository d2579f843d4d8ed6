package instruction_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/instruction"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

func parse(text string) (*instruction.Dockerfile, error) {
	f, err := parser.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	return instruction.Parse(f)
}

func TestParseErrors(t *testing.T) {
	const prefix = "dockerfile parse error on line 2: "
	for text, want := range map[string]string{
		"COPPY a b":                          prefix + "unknown instruction: COPPY (did you mean COPY?)",
		"FROBNICATE":                         prefix + "unknown instruction: FROBNICATE",
		"COPY --chwon=1 a b":                 prefix + "unknown flag: --chwon (did you mean chown?)",
		"RUN --zzz=1 true":                   prefix + "unknown flag: --zzz",
		"ENV --x a=b":                        prefix + "unknown flag: --x",
		"COPY --chown=1 --chown=2 a b":       prefix + "duplicate flag specified: --chown",
		"COPY --chown a b":                   prefix + "missing a value on flag: --chown",
		"COPY --link=perhaps a b":            prefix + "expecting boolean value for flag --link, not: perhaps",
		"COPY a":                             prefix + "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
		"COPY a <<E\nE":                      prefix + "COPY cannot accept a heredoc as a destination",
		"FROM a b":                           prefix + "FROM requires either one or three arguments",
		"FROM a AS 9":                        prefix + `invalid name for build stage: "9", name can't start with a number or contain symbols`,
		"WORKDIR":                            prefix + "WORKDIR requires exactly one argument",
		"EXPOSE":                             prefix + "EXPOSE requires at least one argument",
		"ARG =v":                             prefix + "ARG names can not be blank",
		"LABEL =v":                           prefix + "LABEL names can not be blank",
		"SHELL sh":                           prefix + "SHELL requires the arguments to be in JSON form",
		`VOLUME [""]`:                        prefix + "VOLUME specified can not be an empty string",
		"HEALTHCHECK":                        prefix + "HEALTHCHECK requires at least one argument",
		"HEALTHCHECK TCP 80":                 prefix + `Unknown type "TCP" in HEALTHCHECK (try CMD)`,
		"HEALTHCHECK NONE x":                 prefix + "HEALTHCHECK NONE takes no arguments",
		"HEALTHCHECK CMD":                    prefix + "Missing command after HEALTHCHECK CMD",
		"HEALTHCHECK --interval=1us CMD a":   prefix + `Interval "interval" cannot be less than 1ms`,
		"HEALTHCHECK --timeout=soon CMD a":   prefix + `time: invalid duration "soon"`,
		"HEALTHCHECK --retries=-1 CMD a":     prefix + "--retries cannot be negative (-1)",
		"ONBUILD ONBUILD RUN x":              prefix + "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
		"ONBUILD FROM x":                     prefix + "FROM isn't allowed as an ONBUILD trigger",
		"RUN --network=bridge true":          prefix + `invalid network mode "bridge"`,
		"RUN --security=none true":           prefix + `security "none" is not valid`,
		"RUN --mount= true":                  prefix + "failed to parse csv mounts: EOF",
		"RUN --mount=from=$S,target=/m true": prefix + "'from' doesn't support variable expansion, define alias stage instead",
	} {
		_, err := parse("FROM scratch\n" + text)
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"RUN x":   "no build stage in current context",
		"ARG A=1": "dockerfile contains no stages to build",
	} {
		if _, err := parse(text); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestDescriptions(t *testing.T) {
	d, err := parse("# A of it\nARG A\n# base is first\nFROM x AS base\n# other text\nFROM y AS last")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{d.Args[0].Doc("A"), d.Stages[0].Doc(), d.Stages[1].Doc()}
	if diff := cmp.Diff([]string{"of it", "is first", ""}, got); diff != "" {
		t.Error(diff)
	}
}

func mount(text string) (*instruction.Mount, error) {
	d, err := parse("FROM scratch\nRUN --mount=" + text + " true")
	if err != nil {
		return nil, err
	}
	run := d.Stages[0].Instructions[0].(*instruction.Run)
	return run.Mounts[0].Expand(func(s string) (string, error) { return strings.ReplaceAll(s, "$V", "v"), nil })
}

func num(n uint64) *uint64 { return &n }

func TestMount(t *testing.T) {
	token := "TOKEN"
	for text, want := range map[string]instruction.Mount{
		"target=/x":                                {Type: "bind", Target: "/x", ReadOnly: true},
		"source=$V,dst=/x,rw":                      {Type: "bind", Source: "v", Target: "/x"},
		"src=a,destination=/x,ro=false":            {Type: "bind", Source: "a", Target: "/x"},
		"from=Stage,target=/x":                     {Type: "bind", From: "Stage", Target: "/x", ReadOnly: true},
		"TYPE=cache,target=/c,sharing=LOCKED":      {Type: "cache", Target: "/c", Sharing: "locked"},
		"type=cache,id=i,target=/c,mode=0700,ro":   {Type: "cache", ID: "i", Target: "/c", Mode: num(0o700), ReadOnly: true},
		"type=tmpfs,target=/t,size=1m":             {Type: "tmpfs", Target: "/t", Size: 1 << 20},
		"type=secret,id=a,uid=1,gid=2,required":    {Type: "secret", ID: "a", UID: num(1), GID: num(2), Required: true},
		"type=secret,target=/x/tok":                {Type: "secret", ID: "tok", Target: "/x/tok"},
		"type=secret,source=a,env=TOKEN":           {Type: "secret", ID: "a", Source: "a", Env: &token},
		"type=ssh,id=k,required=false":             {Type: "ssh", ID: "k"},
		`"type=cache","target=/with,comma"`:        {Type: "cache", Target: "/with,comma"},
		"type=bind,target=/x,env=TOKEN,required=1": {Type: "bind", Target: "/x", Env: &token, ReadOnly: true, Required: true},
	} {
		text := strings.ReplaceAll(text, `"`, `\"`)
		got, err := mount(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestMountErrors(t *testing.T) {
	for text, want := range map[string]string{
		"type=zzzzzz":                 `unsupported mount type "zzzzzz"`,
		"type=chace":                  `unsupported mount type "chace" (did you mean cache?)`,
		"target=/c,foo=1":             "unexpected key 'foo' in 'foo=1' (did you mean from?)",
		"type=cache,target":           "invalid field 'target' must be a key=value pair",
		"type=cache,sharing=lokced":   `unsupported sharing value "lokced" (did you mean locked?)`,
		"sharing=private":             "invalid cache sharing set for bind mount",
		"size=1":                      "unexpected key 'size' for mount type 'bind'",
		"type=tmpfs,size=big":         "invalid value for size: big",
		"mode=0700":                   `mode not allowed for "bind" type mounts`,
		"type=cache,uid=root":         "invalid value root for uid",
		"type=cache,mode=rwx":         "invalid value rwx for mode",
		"ro=maybe":                    "invalid value for ro: maybe",
		"required=maybe":              "invalid value for required: maybe",
		"type=secret,id=x,from=y":     "secret mount should not have a from",
		"type=secret":                 "invalid secret mount. one of source, target required",
		"type=secret,id=x,source=y":   "both source and id can't be set",
		"type=ssh,source=x":           "ssh does not support source",
		"type=cache,gid=-1,target=/c": "invalid value -1 for gid",
	} {
		if _, err := mount(text); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

// FuzzMount checks that no value of --mount makes the parser panic and that what it returns is
// within its promises.
func FuzzMount(f *testing.F) {
	for _, seed := range []string{
		"type=cache,target=/c,id=a,sharing=locked,uid=1", "source=a,target=/b,rw", "type=secret,id=x,env=Y,required",
		`"type=tmpfs","size=1g"`, "from=,type=ssh,mode=0777", "ro,rw,=,==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parse("FROM scratch\nRUN --mount=" + text + " true")
		if err != nil {
			return
		}
		run, ok := d.Stages[0].Instructions[0].(*instruction.Run)
		if !ok {
			return
		}
		for _, raw := range run.Mounts {
			m, err := raw.Expand(func(s string) (string, error) { return s, nil })
			if err != nil {
				continue
			}
			if m.Type != instruction.MountTmpfs && m.Size != 0 || m.Type == instruction.MountSecret && m.ID == "" {
				t.Fatalf("%q gives %+v", text, m)
			}
		}
	})
}
