package redact_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/redact"
)

func TestArgumentsLoseTheirCredentials(t *testing.T) {
	for arg, want := range map[string]string{
		"--opt=context=https://u:p@h/x#main":               "--opt=context=https://xxxxx@h/x#main",
		"type=s3,secret_access_key=s,region=r":             "type=s3,secret_access_key=xxxxx,region=r",
		"--export-cache=TOKEN=s,type=gha":                  "--export-cache=TOKEN=xxxxx,type=gha",
		`type=s3,"session_token=a,b",x=y`:                  `type=s3,"session_token=xxxxx",x=y`,
		`type=s3,session_token="a,b",x=y`:                  `type=s3,session_token=xxxxx,x=y`,
		`"session_token=a,b`:                               `"session_token=xxxxx`,
		"token=s":                                          "token=xxxxx",
		"type=s3,access_key_id=a,url=https://u@h,ghtoken=": "type=s3,access_key_id=xxxxx,url=https://xxxxx@h,ghtoken=xxxxx",
		"--secret=id=token,src=/run/token":                 "--secret=id=token,src=/run/token",
		"--registry-auth-tlscontext=host=h,key=k,ca=c":     "--registry-auth-tlscontext=host=h,key=k,ca=c",
		"--secret=id=mine,src=f":                           "--secret=id=mine,src=f",
		"type=x,my_password=p,other=o":                     "type=x,my_password=xxxxx,other=o",
		"--opt=build-arg:HTTP_PROXY=u:p@h:1":               "--opt=build-arg:HTTP_PROXY=xxxxx@h:1",
		"build-arg:https_proxy=u:p@h:1":                    "build-arg:https_proxy=xxxxx@h:1",
		"--opt=build-arg:FROM":                             "--opt=build-arg:FROM",
	} {
		require.Equal(t, []string{"buildctl", want}, redact.Args([]string{"buildctl", arg}))
	}
}
