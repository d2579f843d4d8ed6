package lint_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openbuildkit/buildkit/frontend/dockerfile/lint"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

func TestParseConfig(t *testing.T) {
	for text, want := range map[string]lint.Config{
		"":                                    {},
		"skip=all":                            {SkipAll: true},
		" skip = A , b ; error=TRUE;":         {Skip: []string{"A", "b"}, Error: true},
		"experimental=all;skip=A;error=0":     {ExperimentalAll: true, Skip: []string{"A"}},
		"experimental=InvalidSomething;skip=": {Experimental: []string{"InvalidSomething"}},
	} {
		got, err := lint.ParseConfig(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
	for text, want := range map[string]string{
		"colour=red":  `invalid check option "colour"`,
		"skip":        `invalid check option "skip"`,
		"error=maybe": `failed to parse check option "error": strconv.ParseBool: parsing "maybe": invalid syntax`,
	} {
		if _, err := lint.ParseConfig(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestLinterKeepsABoundedNumberInOrder(t *testing.T) {
	l := lint.New(lint.Config{Error: true, Skip: []string{"undefinedvar"}})
	for i := range 5000 {
		at := []parser.Range{parser.Line(5000 - i)}
		l.ReportAt(lint.StageNameCasing, at, "%s", strconv.Itoa(i))
		l.ReportAt(lint.UndefinedVar, at, "skipped")
		l.ReportAt(lint.InvalidDefinitionDescription, at, "experimental")
	}
	got := l.Warnings()
	if len(got) != 1000 || got[0].Line() != 4001 || got[999].Line() != 5000 {
		t.Errorf("%d warnings from line %d to %d", len(got), got[0].Line(), got[len(got)-1].Line())
	}
	if err := l.Err(); err == nil || err.Error() != "lint violation found for rules: StageNameCasing" {
		t.Errorf("got %v", err)
	}
}

// Names and urls are what users skip rules by and read on at.
func TestRulesHaveTheirNamesAndURLs(t *testing.T) {
	for rule, url := range map[*lint.Rule]string{
		lint.StageNameCasing:                 "stage-name-casing",
		lint.FromAsCasing:                    "from-as-casing",
		lint.NoEmptyContinuation:             "no-empty-continuation",
		lint.ConsistentInstructionCasing:     "consistent-instruction-casing",
		lint.DuplicateStageName:              "duplicate-stage-name",
		lint.ReservedStageName:               "reserved-stage-name",
		lint.JSONArgsRecommended:             "json-args-recommended",
		lint.MaintainerDeprecated:            "maintainer-deprecated",
		lint.UndefinedArgInFrom:              "undefined-arg-in-from",
		lint.WorkdirRelativePath:             "workdir-relative-path",
		lint.UndefinedVar:                    "undefined-var",
		lint.MultipleInstructionsDisallowed:  "multiple-instructions-disallowed",
		lint.LegacyKeyValueFormat:            "legacy-key-value-format",
		lint.InvalidBaseImagePlatform:        "",
		lint.RedundantTargetPlatform:         "redundant-target-platform",
		lint.SecretsUsedInArgOrEnv:           "secrets-used-in-arg-or-env",
		lint.InvalidDefaultArgInFrom:         "invalid-default-arg-in-from",
		lint.FromPlatformFlagConstDisallowed: "from-platform-flag-const-disallowed",
		lint.CopyIgnoredFile:                 "copy-ignored-file",
		lint.InvalidDefinitionDescription:    "invalid-definition-description",
		lint.ExposeProtoCasing:               "expose-proto-casing",
		lint.ExposeInvalidFormat:             "expose-invalid-format",
	} {
		if url != "" {
			url = "https://docs.docker.com/go/dockerfile/rule/" + url + "/"
		}
		if rule.URL != url || rule.Description == "" || rule.Experimental != (rule == lint.InvalidDefinitionDescription) {
			t.Errorf("%+v", rule)
		}
		// A rule's story is in the file of its name.
		story, err := os.ReadFile("../testdata/lint-" + rule.Name + ".txtar")
		if err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(story), "\n"+rule.Name+": ") {
			t.Errorf("%s is not broken in its story", rule.Name)
		}
	}
}
