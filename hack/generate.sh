#!/bin/sh
# Regenerates the Go code of every .proto under api/. Needs protoc with the well-known types
# (Debian: protobuf-compiler and libprotobuf-dev). With an argument, writes below that folder
# instead of the tree, so that a test can compare.
set -eu
cd "$(dirname "$0")/.."
out=${1:-.}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$out" "$tmp/include/github.com/tonistiigi"
go build -modfile=hack/tools/go.mod -o "$tmp/" \
	google.golang.org/protobuf/cmd/protoc-gen-go \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc
# fsutil and vtprotobuf ship their .proto files inside their Go modules.
moddir() { go list -m -f '{{.Dir}}' "$1"; }
ln -s "$(moddir github.com/tonistiigi/fsutil)" "$tmp/include/github.com/tonistiigi/fsutil"
mod=$(go list -m)
PATH="$tmp:$PATH" protoc -I . -I hack/proto -I "$tmp/include" \
	-I "$(moddir github.com/planetscale/vtprotobuf)/include" \
	--go_out="$out" --go_opt=module="$mod" \
	--go-grpc_out="$out" --go-grpc_opt=module="$mod" \
	$(find api -name '*.proto' | sort)
