#!/bin/sh
# Runs every fuzz target of the given packages for FUZZTIME each (default 30s), one after the
# other. A crash is written to testdata/fuzz of its package and ends the run.
#
#   FUZZTIME=5m hack/fuzz.sh ./frontend/... ./session/...
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- ./...
dirs=$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' "$@")
for dir in $dirs; do
	targets=$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go)
	for target in $targets; do
		echo "== ${dir#"$PWD"/} $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-30s}" "$dir"
	done
done
