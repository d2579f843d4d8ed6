#!/bin/sh
# Installs the Debian packages that a task needs and that are missing; touches nothing when all
# are there. As root, or through sudo.
#
#   hack/install-deps.sh quickstart|test|lint
set -eu

# What the daemon needs to run a build, and the base image of the example.
quickstart="ca-certificates runc busybox-static"
# The C compiler serves the race detector.
lint="ca-certificates"
test="$quickstart
	gcc libc6-dev
	protobuf-compiler libprotobuf-dev
	docker-registry crun mmdebstrap fuse-overlayfs skopeo umoci
	git openssh-client e2fsprogs mount iproute2 xz-utils bzip2 zstd tar"

case "${1:-}" in
quickstart) wanted=$quickstart ;;
test) wanted=$test ;;
lint) wanted=$lint ;;
*)
	echo "usage: $0 quickstart|test|lint" >&2
	exit 2
	;;
esac

if ! command -v go >/dev/null; then
	echo "$0: no go command on the PATH; see https://go.dev/doc/install" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "$0: not a Debian system; install by hand:" $wanted >&2
	exit 1
fi

missing=
for package in $wanted; do
	if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
		missing="$missing $package"
	fi
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
	sudo=
elif command -v sudo >/dev/null; then
	sudo=sudo
else
	echo "$0: run as root, or install by hand:$missing" >&2
	exit 1
fi
echo "installing:$missing" >&2
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
